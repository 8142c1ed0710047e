//! Answers that are not what they seem.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use crate::keys::Key;
use crate::object::Net;
use crate::object::settings::{AccessKeys, S3, Secret, Service, Settings, Transport, WebDav};
use crate::store::{ByteRange, PutCondition, Store, StoreErrorKind};

/// A server that hangs up after each answer, which is `answer` of the request's head. An answer has
/// to say so: a client that keeps the connection may send its next request into the close, and then
/// nobody knows what became of it.
fn server(answer: impl Fn(&str) -> String + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut request, mut len) = ([0; 4096], 0);
            // What is left unread at a close can take the answer with it.
            while !request[..len].windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut request[len..]) {
                    Ok(0) | Err(_) => break,
                    Ok(more) => len += more,
                }
            }
            let _ = stream.write_all(answer(&String::from_utf8_lossy(&request[..len])).as_bytes());
        }
    });
    address
}

fn whole(status: &str, body: &str) -> String {
    let len = body.len();
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n{body}")
}

/// Uses a store on a server.
fn with<T>(service: Service, work: impl AsyncFnOnce(&dyn Store) -> T) -> T {
    let settings = Settings { root: "r".into(), service, transport: Transport::default() };
    let net = Net::new(Arc::new(smol::Executor::new()));
    let store = crate::object::open(&settings, &net).unwrap();
    smol::block_on(net.executor().run(work(&*store)))
}

fn s3(server: SocketAddr) -> Service {
    let keys = AccessKeys { id: "id".into(), secret: Secret::new("secret"), session_token: None };
    let endpoint = Some(format!("http://{server}"));
    Service::S3(S3 { bucket: "b".into(), endpoint, path_style: true, keys: Some(keys), ..S3::default() })
}

#[test]
fn what_answers_in_the_place_of_a_server_is_not_believed() {
    for body in [
        "<html><body>Down for a moment</body></html>",
        "<Error><Code>InternalError</Code><Message>again</Message></Error>",
    ] {
        with(s3(server(move |_| whole("200 OK", body))), async |store| {
            let listed = store.list("0000/", None, 10).await;
            assert_eq!(listed.map_err(|error| error.kind), Err(StoreErrorKind::Retry), "{body}");
            let key = Key::new("0000/a").unwrap();
            let put = store.put(&key, PutCondition::IfAbsent).await.unwrap().commit().await;
            assert_eq!(put.map_err(|error| error.kind), Err(StoreErrorKind::Ambiguous), "{body}");
        });
    }
}

/// Where the connection's end is the body's, one that breaks off looks like one that is complete.
#[test]
fn a_body_that_breaks_off_is_read_again() {
    let half = "HTTP/1.1 206 Partial Content\r\nConnection: close\r\nContent-Range: bytes 0-9/10\r\n\r\nhalf";
    with(s3(server(move |_| half.to_owned())), async |store| {
        let key = Key::new("0000/a").unwrap();
        let mut body = store.get(&key, ByteRange::at(0, 10)).await.unwrap();
        assert_eq!(body.next().await.unwrap().as_deref(), Some(&b"half"[..]));
        assert_eq!(body.next().await.map_err(|error| error.kind), Err(StoreErrorKind::Retry));
    });
}

/// As `rclone serve s3` has it: the status of a whole object, and the head of a part.
#[test]
fn a_part_is_one_whatever_the_status_says() {
    let part = "200 OK\r\nContent-Range: bytes 3-4/10";
    with(s3(server(move |_| whole(part, "de"))), async |store| {
        let key = Key::new("0000/a").unwrap();
        let mut body = store.get(&key, ByteRange::at(3, 2)).await.unwrap();
        assert_eq!(body.object_len(), 10);
        assert_eq!(body.next().await.unwrap().as_deref(), Some(&b"de"[..]));
        let error = store.get(&key, ByteRange::at(0, 2)).await.map(|_| ()).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Corrupt, "another part than was asked for");
    });
}

#[test]
fn a_move_that_is_not_said_to_be_done_is_not() {
    let put = |moved: &'static str| {
        let answer = move |request: &str| match request.split(' ').next() {
            Some("MOVE") => whole(moved, ""),
            Some("PROPFIND") => whole("404 Not Found", ""),
            _ => whole("201 Created", ""),
        };
        let service = WebDav { url: format!("http://{}", server(answer)), ..WebDav::default() };
        with(Service::WebDav(service), async |store| {
            let key = Key::new("0000/a").unwrap();
            let put = store.put(&key, PutCondition::Always).await.unwrap();
            put.commit().await.map_err(|error| error.kind)
        })
    };
    assert!(put("201 Created").is_ok());
    assert!(put("204 No Content").is_ok());
    assert_eq!(put("207 Multi-Status"), Err(StoreErrorKind::Ambiguous));
    assert_eq!(put("202 Accepted"), Err(StoreErrorKind::Ambiguous));
}
