//! Clients that mean harm, or are broken, do none; and an idle process stays idle.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use driftless_tests::proc::{assert_no_switches, status_kib};
use serde_json::json;

use super::{PROMPT, Place, exchange, insert};

#[test]
fn strange_requests_are_answered_and_do_no_harm() {
    let place = Place::new("hostile-requests");
    place.configure(&[("a.db", "ra")], "");
    let a = place.database("a.db");
    let daemon = place.start();
    place.ask("sync -wait @a.db").expect_ok();
    let before = status_kib(daemon.id(), "VmRSS");
    let large = |head: &str, n: usize| [head.as_bytes(), &vec![b'x'; n]].concat();
    let post = |body: &str| {
        format!("POST /stop HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    };
    for (request, status) in [
        (b"\x00\x01\x02\xff garbage\r\n\r\n".to_vec(), "400"),
        (b"status\n".to_vec(), "400"),
        (b"GET /nothing HTTP/1.1\r\n\r\n".to_vec(), "404"),
        (b"DELETE /list HTTP/1.1\r\n\r\n".to_vec(), "405"),
        (b"GET /stop HTTP/1.1\r\n\r\n".to_vec(), "405"),
        (b"GET /list HTTP/1.1\r\nX: ".to_vec(), "504"),
        (b"POST /stop HTTP/1.1\r\nContent-Length: 50\r\n\r\n{\"path\":".to_vec(), "504"),
        (large("GET /list HTTP/1.1\r\nX: ", 10 << 20), "431"),
        (large("POST /stop HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n", 1 << 20), "413"),
        (b"POST /stop HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(), "411"),
        (post("not json"), "400"),
        (post("{\"path\":\"\"}"), "400"),
        (post("{\"path\":\"/no/such.db\"}"), "404"),
        (post("{\"path\":\"/a\\u0000b.db\"}"), "404"),
        (post("{\"path\":\"/a.db\",\"timeout\":-1}"), "400"),
        (post(&"[".repeat(60_000)), "400"),
    ] {
        let reply = exchange(&place.socket, &request);
        // A request that is too large may be cut off before the answer is read.
        let cut_off = reply.is_empty() && request.len() > 1 << 19;
        let shown = String::from_utf8_lossy(&request[..request.len().min(60)]).into_owned();
        assert!(cut_off || reply.starts_with(&format!("HTTP/1.1 {status} ")), "{shown:?}: {reply:?}");
    }
    insert(&a, "all the same");
    place.ask("sync -wait @a.db").expect_ok();
    place.expect_restored("ra", "a.db");
    let after = status_kib(daemon.id(), "VmRSS");
    assert!(after < before + (8 << 10), "from {before} to {after} KiB");
    daemon.term().expect_code(0);
}

#[test]
fn a_hundred_silent_connections_stop_nothing() {
    let place = Place::new("hostile-silent");
    place.configure(&[("a.db", "ra")], "");
    let a = place.database("a.db");
    let daemon = place.start();
    let mut silent: Vec<UnixStream> = (0..100).map(|_| UnixStream::connect(&place.socket).unwrap()).collect();
    for stream in silent.iter_mut().step_by(2) {
        stream.write_all(b"GET /list HT").unwrap();
    }
    let begun = Instant::now();
    assert_eq!(place.status()["databases"][0]["ended"], json!(false));
    insert(&a, "beside them");
    place.ask("sync -wait @a.db").expect_ok();
    assert!(begun.elapsed() < PROMPT, "{:?}", begun.elapsed());
    place.expect_restored("ra", "a.db");
    daemon.term().expect_code(0);
}

#[test]
fn nothing_wakes_an_idle_process_that_listens() {
    let place = Place::new("control-idle");
    place.configure(&[("a.db", "ra")], "");
    let _a = place.database("a.db");
    let mut daemon = place.start();
    place.ask("register @b.db @rb").expect_ok();
    place.ask("sync -wait @a.db").expect_ok();
    place.ask("unregister @b.db").expect_ok();
    daemon.wait_for_line("the database is quiet");
    // A request after that wakes it, and leaves nothing behind.
    place.ask("list").expect_ok();
    place.status();
    assert_no_switches(daemon.id(), Duration::from_secs(10));
    daemon.term().expect_code(0);
}
