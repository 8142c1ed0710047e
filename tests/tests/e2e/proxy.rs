//! That the proxy does the harm it claims to do, and counts what passes.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use driftless_tests::http::{self, Body, Request, Response};
use driftless_tests::objects::Objects;
use driftless_tests::proxy::{Answer, Fault, Proxy, Rule};
use driftless_tests::s3::Bucket;
use driftless_tests::servers::moto;
use driftless_tests::{PATIENCE, wait_for};

/// A bucket, and the same behind a proxy.
fn scene(name: &str) -> (Proxy, Bucket, Bucket) {
    let direct = moto().bucket(name);
    let proxy = Proxy::start(direct.server());
    let through = Bucket::new(proxy.address(), direct.name(), direct.key().clone());
    (proxy, direct, through)
}

/// A key for requests that are written by hand: moto wants one for most, and checks nothing of it.
const KEY: &str = "Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request";

/// A client's connection that stays open.
struct Line(BufReader<TcpStream>);

impl Line {
    fn open(proxy: &Proxy) -> Line {
        let stream = TcpStream::connect(proxy.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Line(BufReader::new(stream))
    }

    fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn answer(&mut self, method: &str) -> io::Result<Response> {
        let mut response = Response::read_head(&mut self.0)?;
        let framing = response.framing(method)?;
        response.body = Body::new(&mut self.0, framing).read_all()?;
        Ok(response)
    }

    /// Whether nothing comes for a while, though the connection is open.
    fn is_quiet(&mut self) -> bool {
        let stream = self.0.get_ref();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let kind = self.0.read(&mut [0]).map_err(|error| error.kind());
        self.0.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        kind == Err(io::ErrorKind::WouldBlock)
    }
}

/// What a client sees of a request that the rules hit.
fn attempt(bucket: &Bucket, request: &Request) -> io::Result<u16> {
    bucket.try_send(request.clone()).map(|response| response.status)
}

fn put(bucket: &Bucket, key: &str) -> Request {
    Request::new("PUT", &bucket.target(key)).body("content")
}

#[test]
fn what_passes_is_passed_whole_and_counted() {
    let (proxy, direct, through) = scene("passes");
    let body: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
    through.put("a b+c", &body);
    assert_eq!(direct.get("a b+c").as_ref(), Some(&body));
    assert_eq!(through.get("a b+c").as_ref(), Some(&body));
    assert_eq!(through.get("none"), None);
    assert_eq!(through.head("a b+c").unwrap().size, 300_000);
    assert_eq!(through.list().len(), 1);
    through.begin_upload("orphan");
    through.delete("a b+c");
    let counts = [("CREATE-UPLOAD", 1), ("DELETE", 1), ("GET", 2), ("HEAD", 1), ("LIST", 1), ("PUT", 1)];
    assert_eq!(proxy.counts(), BTreeMap::from(counts));
    let records = proxy.records();
    let (put, get) = (&records[0], &records[1]);
    assert_eq!((put.body_bytes, put.status, put.server_status), (300_000, Some(200), Some(200)));
    assert_eq!((get.answer_bytes, get.key()), (300_000, Some("test")));
    assert!(put.path.ends_with("/a%20b%2Bc") && put.faults.is_empty() && put.took_effect());
    let mark = proxy.mark();
    assert!(proxy.since(mark).is_empty());
    proxy.forget();
    assert!(proxy.records().is_empty());
}

#[test]
fn a_connection_serves_many_requests() {
    let (proxy, direct, _) = scene("keep-alive");
    let mut line = Line::open(&proxy);
    let target = direct.target("x");
    line.send(&format!(
        "PUT {target} HTTP/1.1\r\nHost: h\r\n{KEY}\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    ));
    let mut first = [0; 25];
    line.0.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n");
    line.send("abc");
    assert_eq!(line.answer("PUT").unwrap().status, 200);
    line.send(&format!("PUT {target} HTTP/1.1\r\nHost: h\r\n{KEY}\r\nTransfer-Encoding: chunked\r\n\r\n"));
    line.send("2\r\nde\r\n1\r\nf\r\n0\r\n\r\n");
    assert_eq!(line.answer("PUT").unwrap().status, 200);
    line.send(&format!("HEAD {target} HTTP/1.1\r\nHost: h\r\n{KEY}\r\n\r\n"));
    let head = line.answer("HEAD").unwrap();
    assert_eq!((head.headers.get("content-length"), head.body.len()), (Some("3"), 0));
    line.send(&format!("GET http://machine:80{target} HTTP/1.1\r\nHost: h\r\n{KEY}\r\n\r\n"));
    assert_eq!(line.answer("GET").unwrap().text(), "def");
    let records = proxy.records();
    assert_eq!(records.len(), 4);
    assert!(records.iter().all(|record| record.connection == records[0].connection));
    assert_eq!(records[3].authority.as_deref(), Some("machine:80"));
    line.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    line.answer("GET").unwrap();
    assert_eq!(line.0.read(&mut [0]).unwrap(), 0);
    wait_for("the end of the connection", PATIENCE, || proxy.connections() == 0);
}

#[test]
fn a_tunnel_leads_to_the_server() {
    let (proxy, direct, _) = scene("tunnel");
    direct.put("x", b"1");
    let mut line = Line::open(&proxy);
    line.send("CONNECT bucket.example:443 HTTP/1.1\r\nHost: bucket.example:443\r\n\r\n");
    let mut head = [0; 26];
    line.0.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 Connected\r\n\r\n");
    line.send(&format!(
        "GET {} HTTP/1.1\r\nHost: h\r\n{KEY}\r\nConnection: close\r\n\r\n",
        direct.target("x")
    ));
    assert_eq!(line.answer("GET").unwrap().text(), "1");
    assert_eq!(proxy.counts(), BTreeMap::from([("CONNECT", 1)]));
}

/// The four fates of a request: what its sender sees, and whether it has an effect.
#[test]
fn a_cut_is_before_or_after_the_effect() {
    let (proxy, direct, through) = scene("cuts");
    let cases: [(&str, Fault, Result<u16, ()>, bool); 6] = [
        ("before", Fault::CutBefore, Err(()), false),
        ("within", Fault::CutWithin(3), Err(()), false),
        ("after", Fault::CutAfter, Err(()), true),
        ("answer", Fault::Answer(Answer::internal_error()), Ok(500), false),
        ("early", Fault::AnswerEarly(Answer::access_denied()), Ok(403), false),
        ("lie", Fault::AnswerAfter(Answer::unavailable()), Ok(503), true),
    ];
    for (key, fault, seen, effect) in cases {
        let rule = proxy.add(Rule::new(fault).method("PUT").path_ends(key).times(1));
        let request = put(&through, key);
        assert_eq!(attempt(&through, &request).map_err(drop), seen, "{key}");
        assert_eq!(direct.get(key).is_some(), effect, "{key}");
        let last = proxy.records().pop().unwrap();
        assert_eq!((last.took_effect(), last.status), (effect, seen.ok()), "{key}");
        assert_eq!(last.faults.len(), 1);
        assert_eq!(attempt(&through, &request).unwrap(), 200, "{key}: only once");
        assert_eq!(proxy.remove(rule), 1);
    }
    assert_eq!(proxy.records()[2].body_bytes, 3, "the request that was cut within");
}

#[test]
fn answers_in_the_name_of_the_store_are_well_formed() {
    let (proxy, direct, through) = scene("answers");
    direct.put("x", b"1");
    for (answer, status, code) in [
        (Answer::slow_down(), 503, "SlowDown"),
        (Answer::too_many_requests(7), 429, "TooManyRequests"),
        (Answer::expired_token(), 400, "ExpiredToken"),
        (Answer::time_skewed(), 403, "RequestTimeTooSkewed"),
        (Answer::wrong_signature(), 403, "SignatureDoesNotMatch"),
        (Answer::conflict(), 409, "ConditionalRequestConflict"),
        (Answer::precondition_failed(), 412, "PreconditionFailed"),
        (Answer::no_such_bucket(), 404, "NoSuchBucket"),
        (Answer::no_such_key(), 404, "NoSuchKey"),
    ] {
        let rule = proxy.add(Rule::new(Fault::Answer(answer)));
        let response = through.send(Request::new("GET", &through.target("x"))).expect(status);
        assert!(response.text().contains(&format!("<Code>{code}</Code>")), "{}", response.text());
        assert_eq!(response.headers.get("retry-after"), (status == 429).then_some("7"));
        let head = through.send(Request::new("HEAD", &through.target("x"))).expect(status);
        assert!(head.body.is_empty());
        proxy.remove(rule);
    }
    let old = through.send(Request::new("GET", &format!("/{}?list-type=2", through.name())));
    direct.put("y", b"2");
    proxy.add(Rule::new(Fault::Answer(Answer::again(&old))).operation("LIST").times(1));
    assert_eq!((through.count(), through.count()), (1, 2), "a list that is out of date, once");
}

#[test]
fn bodies_are_truncated_changed_and_doubled() {
    let (proxy, direct, through) = scene("bodies");
    direct.put("x", b"0123456789");
    let get = Request::new("GET", &through.target("x"));
    proxy.add(Rule::new(Fault::Truncate(4)).method("GET").times(1));
    let mut line = Line::open(&proxy);
    line.send(&format!("GET {} HTTP/1.1\r\nHost: h\r\n{KEY}\r\n\r\n", through.target("x")));
    assert_eq!(line.answer("GET").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(proxy.records()[0].answer_bytes, 4);
    proxy.add(Rule::new(Fault::CorruptAnswer(3)).method("GET").times(1));
    assert_eq!(through.send(get.clone()).text(), "012s456789");
    assert_eq!(through.send(get).text(), "0123456789");
    proxy.add(Rule::new(Fault::CorruptRequest(0)).method("PUT").times(1));
    through.put("y", b"000");
    assert_eq!(direct.get("y").as_deref(), Some(&b"p00"[..]));
    // The second of two that create one object is refused by the first.
    proxy.add(Rule::new(Fault::Twice).has_header("if-none-match"));
    assert_eq!(through.create_object("z", b"1"), 412);
    assert_eq!(direct.get("z").as_deref(), Some(&b"1"[..]));
    assert_eq!(proxy.counts()["PUT"], 2, "the client has sent it once");
}

#[test]
fn lists_come_in_tiny_pages() {
    let (proxy, direct, through) = scene("pages");
    for i in 0..7 {
        direct.put(&format!("k&{i}"), b"");
    }
    let rule = proxy.add(Rule::new(Fault::Query("max-keys", "2".to_owned())).operation("LIST"));
    assert_eq!(through.list(), direct.list());
    assert_eq!(proxy.hits(rule), 4);
}

#[test]
fn time_passes_where_it_should() {
    let (proxy, direct, through) = scene("time");
    let took = |request: &Request| {
        let began = Instant::now();
        assert_eq!(attempt(&through, request).unwrap(), 200);
        began.elapsed()
    };
    let delay = Duration::from_millis(300);
    for (key, fault, effect_first) in
        [("request", Fault::DelayRequest(delay), false), ("answer", Fault::DelayAnswer(delay), true)]
    {
        proxy.add(Rule::new(fault).path_ends(key));
        let request = put(&through, key);
        let mut line = TcpStream::connect(proxy.address()).unwrap();
        line.write_all(&through.sign(request.clone()).header("Content-Length", 7).head()).unwrap();
        line.write_all(b"content").unwrap();
        let began = Instant::now();
        wait_for("the effect", PATIENCE, || direct.get(key).is_some());
        // It comes though its sender is gone by then.
        line.shutdown(Shutdown::Both).unwrap();
        assert_eq!(began.elapsed() < delay, effect_first, "{key}: {:?}", began.elapsed());
        assert!(took(&request) >= delay);
    }
    proxy.clear();
    proxy.add(Rule::new(Fault::Bandwidth(100_000)).path_ends("slow"));
    assert!(took(&put(&through, "slow").body(vec![7; 30_000])) >= Duration::from_millis(300));
    assert!(took(&Request::new("GET", &through.target("slow"))) >= Duration::from_millis(300));
    assert!(took(&put(&through, "quick").body(vec![7; 30_000])) < Duration::from_secs(20));
}

#[test]
fn requests_hang_before_or_after_the_effect() {
    let (proxy, direct, _) = scene("hang");
    for (key, fault, effect) in [("before", Fault::HangBefore, false), ("after", Fault::HangAfter, true)] {
        proxy.add(Rule::new(fault).path_ends(key));
        let mut line = Line::open(&proxy);
        line.send(&format!(
            "PUT {} HTTP/1.1\r\nHost: h\r\n{KEY}\r\nContent-Length: 1\r\n\r\n1",
            direct.target(key)
        ));
        let record = proxy.wait_for(key, PATIENCE, |record| {
            record.path.ends_with(key) && record.body_bytes == 1 && record.took_effect() == effect
        });
        assert!(line.is_quiet());
        assert_eq!((direct.get(key).is_some(), record.status), (effect, None));
    }
    wait_for("the end of lines that nobody holds", PATIENCE, || proxy.connections() == 0);
}

#[test]
fn silence_holds_all_up_and_lets_it_through_late() {
    let (proxy, direct, through) = scene("silence");
    proxy.silence(None);
    let mut lines = [Line::open(&proxy), Line::open(&proxy)];
    for (i, line) in lines.iter_mut().enumerate() {
        line.send(&format!(
            "PUT {} HTTP/1.1\r\nHost: h\r\n{KEY}\r\nContent-Length: 1\r\n\r\n1",
            direct.target(&format!("{i}"))
        ));
        assert!(line.is_quiet());
    }
    assert_eq!((direct.count(), proxy.records().len()), (0, 0));
    proxy.heal();
    for line in &mut lines {
        assert_eq!(line.answer("PUT").unwrap().status, 200);
    }
    assert_eq!(direct.count(), 2);

    let began = Instant::now();
    proxy.silence(Some(Duration::from_millis(200)));
    through.put("timed", b"1");
    assert!(began.elapsed() >= Duration::from_millis(200));

    // What is cut in a silence has no effect, even later.
    proxy.silence(None);
    lines[0].send(&format!(
        "PUT {} HTTP/1.1\r\nHost: h\r\n{KEY}\r\nContent-Length: 1\r\n\r\n1",
        direct.target("cut")
    ));
    assert!(lines[0].is_quiet());
    proxy.cut_all();
    proxy.heal();
    assert!(lines[0].answer("PUT").is_err());
    assert!(through.get("cut").is_none());
}

#[test]
fn refusal_is_immediate_and_ends() {
    let (proxy, _, through) = scene("refuse");
    let get = Request::new("GET", &through.target("x"));
    let kind = || attempt(&through, &get).map_err(|error| error.kind());
    let mut line = Line::open(&proxy);
    line.send(&format!("HEAD {} HTTP/1.1\r\nHost: h\r\n{KEY}\r\n\r\n", through.target("x")));
    line.answer("HEAD").unwrap();
    for _ in 0..3 {
        proxy.refuse(None);
        assert_eq!(kind(), Err(io::ErrorKind::ConnectionRefused));
        proxy.heal();
        assert_eq!(kind(), Ok(404));
    }
    assert!(line.answer("HEAD").is_err(), "what was open has been cut");
    proxy.refuse(Some(Duration::from_millis(100)));
    wait_for("the end of the refusal", PATIENCE, || kind() == Ok(404));
    let address = proxy.address();
    drop(proxy);
    assert!(TcpStream::connect(address).is_err(), "nothing is left when it is dropped");
}

#[test]
fn keys_are_asked_for_expire_and_are_rotated() {
    let (proxy, _, through) = scene("keys");
    let get = || {
        let response = through.send(Request::new("GET", &through.target("x")));
        (response.status, response.text())
    };
    let code = |code: &str| {
        let (status, text) = get();
        assert!(text.contains(&format!("<Code>{code}</Code>")), "{text}");
        status
    };
    proxy.allow_key("another");
    assert_eq!(code("InvalidAccessKeyId"), 403);
    proxy.allow_key("test");
    assert_eq!(code("NoSuchKey"), 404);
    proxy.expire_key("test");
    assert_eq!(code("ExpiredToken"), 400);
    proxy.allow_key_with_token("test", "token");
    assert_eq!(code("InvalidToken"), 400);
    let with_token = Request::new("GET", &through.target("x")).header("x-amz-security-token", "token");
    through.send(with_token).expect(404);
    let unsigned = Request::new("GET", &through.target("x"));
    assert_eq!(http::send(through.server(), &unsigned).status, 403);
    proxy.forget_keys();
    assert_eq!(code("NoSuchKey"), 404);
    let refused = proxy.records().iter().filter(|record| record.faults == ["keys"]).count();
    assert_eq!(refused, 4);
}

#[test]
fn a_server_that_is_down_looks_like_one() {
    let nobody = driftless_tests::port::Port::reserve();
    let proxy = Proxy::start(nobody.address());
    assert!(http::try_send(proxy.address(), &Request::new("GET", "/")).is_err());
    assert_eq!(proxy.records()[0].faults, ["server-unreachable"]);
}
