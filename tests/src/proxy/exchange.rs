//! One connection, request by request: receive, judge, forward, answer.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use super::record::Record;
use super::rule::{Fault, Plan};
use super::{Connection, Shared, Weather};
use crate::http::{self, Body, Framing, Request, Response};

/// How much passes at once, between two looks at the weather.
const PIECE_BYTES: usize = 64 << 10;

/// What becomes of a connection after a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Then {
    Next,
    Close,
    Reset,
}

/// Serves a connection to its end.
pub(super) fn serve(shared: &Shared, connection: &Connection) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(PIECE_BYTES, &connection.stream);
    while let Some(request) = Request::read_head(&mut reader)? {
        let mut exchange = Exchange::begin(shared, connection, request)?;
        let then = exchange.run(&mut reader);
        let took = exchange.began.elapsed();
        shared.record(exchange.number, |record| record.took = Some(took));
        match then? {
            Then::Next => {}
            Then::Close => break,
            Then::Reset => {
                connection.reset_on_close();
                break;
            }
        }
    }
    Ok(())
}

/// A request on its way.
struct Exchange<'a> {
    shared: &'a Shared,
    connection: &'a Connection,
    number: u64,
    request: Request,
    plan: Plan,
    bandwidth: Option<u64>,
    began: Instant,
}

impl<'a> Exchange<'a> {
    /// Waits for the weather, records the request, and asks rules and keys.
    fn begin(
        shared: &'a Shared,
        connection: &'a Connection,
        mut request: Request,
    ) -> io::Result<Exchange<'a>> {
        pass_gate(shared, connection)?;
        let authority = take_authority(&mut request);
        let mut state = shared.lock();
        let number = state.number();
        let mut plan = Plan::make(state.rules.values_mut(), &request);
        let refusal = state.keys.refusal(&request);
        let mut record = Record::new(shared.started.elapsed(), connection.number, &request);
        record.authority = authority;
        record.faults = plan.names();
        if let (None, Some(refusal)) = (&plan.outcome, refusal) {
            plan.outcome = Some(Fault::Answer(refusal));
            record.faults.push("keys");
        }
        state.records.insert(number, record);
        let bandwidth = plan.changes.iter().find_map(|fault| match fault {
            Fault::Bandwidth(rate) => Some(*rate),
            _ => None,
        });
        Ok(Exchange { shared, connection, number, request, plan, bandwidth, began: Instant::now() })
    }

    fn run(&mut self, reader: &mut BufReader<&TcpStream>) -> io::Result<Then> {
        let outcome = self.plan.outcome.clone();
        if let Some(Fault::AnswerEarly(answer)) = &outcome {
            let response = answer.to(&self.request);
            self.reply(response)?;
            // Bytes that nobody reads would turn the close into a reset, which may overtake the
            // answer.
            let _ = self.connection.stream.shutdown(std::net::Shutdown::Write);
            self.connection.await_close(self.shared);
            return Ok(Then::Close);
        }
        if !self.receive(reader)? {
            return Ok(Then::Reset);
        }
        for delay in self.delays(|fault| matches!(fault, Fault::DelayRequest(_))) {
            self.pause(delay)?;
        }
        match &outcome {
            Some(Fault::CutBefore) => return Ok(Then::Reset),
            Some(Fault::HangBefore) => return self.hang(),
            Some(Fault::Answer(answer)) => {
                let response = answer.to(&self.request);
                return self.reply(response);
            }
            _ => {}
        }
        self.gate()?;
        if self.request.method == "CONNECT" {
            return self.tunnel();
        }
        let Some((from, response)) = self.forward() else { return Ok(Then::Reset) };
        for delay in self.delays(|fault| matches!(fault, Fault::DelayAnswer(_))) {
            self.pause(delay)?;
        }
        self.gate()?;
        match &outcome {
            Some(Fault::CutAfter) => Ok(Then::Reset),
            Some(Fault::HangAfter) => self.hang(),
            Some(Fault::AnswerAfter(answer)) => {
                let response = answer.to(&self.request);
                self.reply(response)
            }
            _ => self.pass_on(from, response),
        }
    }

    /// Receives the body; `false` if it was to be cut within.
    fn receive(&mut self, reader: &mut BufReader<&TcpStream>) -> io::Result<bool> {
        let most = match self.plan.outcome {
            Some(Fault::CutWithin(bytes)) => bytes,
            _ => u64::MAX,
        };
        if self.request.expects_continue() {
            (&self.connection.stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let framing = match self.request.method.as_str() {
            "CONNECT" => Framing::Length(0),
            _ => self.request.framing()?,
        };
        let mut body = Body::new(reader, framing).take(most);
        let mut received = Vec::new();
        let mut piece = vec![0; self.piece_bytes()];
        loop {
            let count = body.read(&mut piece)?;
            if count == 0 {
                break;
            }
            received.extend_from_slice(&piece[..count]);
            self.shared.record(self.number, |record| record.body_bytes += count as u64);
            self.spend(count)?;
        }
        self.request.body = received;
        Ok(most == u64::MAX)
    }

    /// Forwards it and reads the head of the answer; `None`, and a word in the record, if the server
    /// cannot be reached.
    fn forward(&mut self) -> Option<(BufReader<TcpStream>, Response)> {
        let mut request = std::mem::take(&mut self.request);
        request.headers.remove("Expect");
        let mut times = 1;
        for change in &self.plan.changes {
            match change {
                Fault::Query(name, value) => set_query(&mut request, name, value),
                Fault::CorruptRequest(at) => corrupt(&mut request.body, *at),
                Fault::Twice => times = 2,
                _ => {}
            }
        }
        let send = || -> io::Result<(BufReader<TcpStream>, Response)> {
            let mut from = http::open(self.shared.server, &request)?;
            let response = Response::read_head(&mut from)?;
            Ok((from, response))
        };
        let mut answered = send();
        while times > 1 && answered.is_ok() {
            times -= 1;
            answered = send();
        }
        self.shared.record(self.number, |record| match &answered {
            Ok((_, response)) => record.server_status = Some(response.status),
            Err(_) => record.faults.push("server-unreachable"),
        });
        // The answer depends on the method; the body is not needed any more.
        request.body.clear();
        self.request = request;
        answered.ok()
    }

    /// Answers in the server's name.
    fn reply(&self, response: Response) -> io::Result<Then> {
        let mut out = response.head();
        out.extend_from_slice(&response.body);
        self.gate()?;
        self.told(response.status);
        (&self.connection.stream).write_all(&out)?;
        self.shared.record(self.number, |record| record.answer_bytes = response.body.len() as u64);
        Ok(self.next())
    }

    /// Passes the server's answer on, piece by piece.
    fn pass_on(&self, mut from: BufReader<TcpStream>, mut response: Response) -> io::Result<Then> {
        let framing = response.framing(&self.request.method)?;
        let chunked = !matches!(framing, Framing::Length(_));
        response.headers.remove("Connection");
        response.headers.remove("Transfer-Encoding");
        if chunked {
            response.headers.set("Transfer-Encoding", "chunked");
        }
        let mut to = &self.connection.stream;
        self.told(response.status);
        to.write_all(&response.head())?;
        let most = match self.plan.outcome {
            Some(Fault::Truncate(bytes)) => bytes,
            _ => u64::MAX,
        };
        let mut body = Body::new(&mut from, framing).take(most);
        let mut piece = vec![0; self.piece_bytes()];
        let mut at = 0;
        loop {
            let count = body.read(&mut piece)?;
            if count == 0 {
                break;
            }
            for change in &self.plan.changes {
                if let Fault::CorruptAnswer(place) = change
                    && let Some(place) = place.checked_sub(at)
                {
                    corrupt(&mut piece[..count], place);
                }
            }
            self.spend(count)?;
            self.gate()?;
            if chunked {
                to.write_all(format!("{count:x}\r\n").as_bytes())?;
            }
            to.write_all(&piece[..count])?;
            if chunked {
                to.write_all(b"\r\n")?;
            }
            at += count as u64;
            self.shared.record(self.number, |record| record.answer_bytes = at);
        }
        if body.limit() == 0 {
            return Ok(Then::Close);
        }
        if chunked {
            to.write_all(b"0\r\n\r\n")?;
        }
        Ok(self.next())
    }

    /// Connects the client with the server, for a protocol that is none of ours.
    fn tunnel(&self) -> io::Result<Then> {
        let server = TcpStream::connect(self.shared.server)?;
        (&self.connection.stream).write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
        self.told(200);
        thread::scope(|scope| {
            scope.spawn(|| {
                let _ = io::copy(&mut &server, &mut &self.connection.stream);
                let _ = self.connection.stream.shutdown(std::net::Shutdown::Both);
            });
            let _ = io::copy(&mut &self.connection.stream, &mut &server);
            let _ = server.shutdown(std::net::Shutdown::Both);
        });
        Ok(Then::Close)
    }

    fn hang(&self) -> io::Result<Then> {
        self.connection.await_close(self.shared);
        Ok(Then::Close)
    }

    fn told(&self, status: u16) {
        self.shared.record(self.number, |record| record.status = Some(status));
    }

    fn next(&self) -> Then {
        if self.request.keeps_alive() { Then::Next } else { Then::Close }
    }

    fn gate(&self) -> io::Result<()> {
        pass_gate(self.shared, self.connection)
    }

    fn delays(&self, which: impl Fn(&Fault) -> bool) -> Vec<Duration> {
        let chosen = self.plan.changes.iter().filter(|fault| which(fault));
        chosen
            .filter_map(|fault| match fault {
                Fault::DelayRequest(time) | Fault::DelayAnswer(time) => Some(*time),
                _ => None,
            })
            .collect()
    }

    fn pause(&self, time: Duration) -> io::Result<()> {
        match self.shared.wait_while(Some(Instant::now() + time), |_| !self.connection.is_cut()) {
            true if !self.connection.is_cut() => Ok(()),
            _ => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    /// Small enough that a slow line looks like one, and not like bursts.
    fn piece_bytes(&self) -> usize {
        let tenth = self.bandwidth.map_or(u64::MAX, |rate| (rate / 10).max(1));
        usize::try_from(tenth).unwrap_or(usize::MAX).min(PIECE_BYTES)
    }

    /// Takes the time that these bytes need.
    fn spend(&self, bytes: usize) -> io::Result<()> {
        match self.bandwidth {
            Some(rate) => self.pause(Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64)),
            None => Ok(()),
        }
    }
}

/// Waits while nothing passes.
fn pass_gate(shared: &Shared, connection: &Connection) -> io::Result<()> {
    let held = |state: &super::State| state.weather() == Weather::Silent && !connection.is_cut();
    match shared.wait_while(None, held) && !connection.is_cut() {
        true => Ok(()),
        false => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}

/// Makes `http://machine/path` a path: that is what a client sends to a proxy.
fn take_authority(request: &mut Request) -> Option<String> {
    if request.method == "CONNECT" {
        return Some(request.target.clone());
    }
    let rest = request.target.strip_prefix("http://")?;
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = (rest[..at].to_owned(), rest[at..].to_owned());
    request.target = if path.starts_with('/') { path } else { format!("/{path}") };
    Some(authority)
}

fn set_query(request: &mut Request, name: &str, value: &str) {
    let named = |pair: &&str| pair.split('=').next() == Some(name);
    let mut pairs: Vec<&str> =
        request.query().split('&').filter(|pair| !pair.is_empty() && !named(pair)).collect();
    let changed = format!("{name}={value}");
    pairs.push(&changed);
    request.target = format!("{}?{}", request.path(), pairs.join("&"));
}

/// Changes one byte, if there are so many.
fn corrupt(bytes: &mut [u8], at: u64) {
    if let Some(byte) = usize::try_from(at).ok().and_then(|at| bytes.get_mut(at)) {
        *byte ^= 0x40;
    }
}
