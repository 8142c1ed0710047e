use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use futures_lite::{StreamExt as _, stream};

use super::*;

/// What a request looked like to the server.
#[derive(Debug)]
struct Seen {
    head: String,
    body: Vec<u8>,
}

/// One connection of a test server.
struct Peer {
    stream: BufReader<TcpStream>,
}

impl Peer {
    fn head(&mut self) -> Option<String> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        Some(head)
    }

    fn request(&mut self) -> Option<Seen> {
        let head = self.head()?;
        let len = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; len.unwrap_or(0)];
        self.stream.read_exact(&mut body).ok()?;
        Some(Seen { head, body })
    }

    fn say(&mut self, text: &str) {
        let _ = self.stream.get_mut().write_all(text.as_bytes());
    }

    /// Whether the other side has closed.
    fn is_closed(&mut self) -> bool {
        self.stream.read(&mut [0]).map_or(true, |n| n == 0)
    }
}

/// A server that gives each connection, with its number, to `serve`.
fn server<T: Send + 'static>(
    mut serve: impl FnMut(usize, Peer) -> T + Send + 'static,
) -> (SocketAddr, Receiver<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = channel();
    thread::spawn(move || {
        for (n, stream) in listener.incoming().enumerate() {
            let peer = Peer { stream: BufReader::new(stream.unwrap()) };
            // Not every test listens.
            let _ = tell.send(serve(n, peer));
        }
    });
    (address, told)
}

fn client() -> Http {
    let mut http = Http::new(Arc::default());
    http.proxies = OnceLock::from(Ok(Proxies::default()));
    http
}

fn run<T>(http: Http, work: impl AsyncFnOnce(&Arc<Http>) -> T) -> T {
    let http = Arc::new(http);
    smol::block_on(Arc::clone(&http.executor).run(work(&http)))
}

fn request(method: &str, url: impl fmt::Display, body: impl Into<Vec<u8>>) -> Request<Body> {
    let body: Vec<u8> = body.into();
    Request::builder().method(method).uri(url.to_string()).body(Body::memory(body)).unwrap()
}

async fn fetch(http: &Arc<Http>, request: Request<Body>) -> Result<(u16, Vec<u8>), Failure> {
    let answer = http.send(request, Route::default()).await?;
    let status = answer.status().as_u16();
    Ok((status, answer.into_body().whole(1 << 20).await?))
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn one_connection_carries_request_after_request() {
    let (address, _) = server(|_, mut peer| {
        while let Some(seen) = peer.request() {
            assert!(seen.head.contains(&format!("host: {}", peer.stream.get_ref().local_addr().unwrap())));
            peer.say(OK);
        }
    });
    run(client(), async |http| {
        for n in 0..5 {
            let got = fetch(http, request("PUT", format!("http://{address}/{n}"), [7; 1000])).await;
            assert_eq!(got, Ok((200, b"ok".to_vec())));
        }
        assert_eq!(http.opened(), 1);
    });
}

#[test]
fn a_connection_that_closed_while_idle_is_replaced_without_a_word() {
    let (address, closed) = server(|_, mut peer| {
        let seen = peer.request();
        peer.say(OK);
        seen.map(|seen| seen.body)
    });
    run(client(), async |http| {
        for n in 0..3 {
            let got = fetch(http, request("PUT", format!("http://{address}/"), [n])).await;
            assert_eq!(got, Ok((200, b"ok".to_vec())));
            // The server has closed when it has reported.
            assert_eq!(closed.recv().unwrap(), Some(vec![n]));
        }
        assert_eq!(http.opened(), 3);
    });
}

#[test]
fn bodies_that_end_early_are_errors() {
    let check = |head: &'static str, whole: Option<&[u8]>| {
        let (address, _) = server(move |_, mut peer| {
            peer.request();
            peer.say(head);
        });
        let got =
            run(client(), async |http| fetch(http, request("GET", format!("http://{address}/"), [])).await);
        match whole {
            Some(whole) => assert_eq!(got.unwrap().1, whole, "{head:?}"),
            None => assert_eq!(got.unwrap_err().stage, Stage::Sent, "{head:?}"),
        }
    };
    check("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789", Some(b"0123456789"));
    check("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234", None);
    check(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        Some(b"abcde"),
    );
    check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n", None);
    check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", None);
    check("HTTP/1.1 200 OK\r\nContent-", None);
    check("", None);
    check("nonsense\r\n\r\n", None);
}

#[test]
fn an_answer_that_is_too_long_is_refused() {
    let (address, _) = server(|_, mut peer| {
        peer.request();
        peer.say(OK);
    });
    run(client(), async |http| {
        let answer =
            http.send(request("GET", format!("http://{address}/"), []), Route::default()).await.unwrap();
        assert!(answer.into_body().whole(1).await.is_err());
    });
}

#[test]
fn what_the_server_cannot_have_received_is_unsent() {
    // Nobody listens.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused =
        run(client(), async |http| fetch(http, request("PUT", format!("http://{free}/"), [1])).await);
    assert_eq!(refused.unwrap_err().stage, Stage::Unsent);
    // No such name.
    let unknown =
        run(client(), async |http| fetch(http, request("GET", "http://nothing.invalid/", [])).await);
    assert_eq!(unknown.unwrap_err().stage, Stage::Unsent);
    // The connection breaks within the body.
    let (address, _) = server(|_, mut peer| drop(peer.head()));
    let big = vec![0; 64 << 20];
    let cut =
        run(client(), async |http| fetch(http, request("PUT", format!("http://{address}/"), big)).await);
    assert_eq!(cut.unwrap_err().stage, Stage::Unsent);
    // The connection breaks after all of it.
    let (address, _) = server(|_, mut peer| drop(peer.request()));
    let lost =
        run(client(), async |http| fetch(http, request("PUT", format!("http://{address}/"), [1])).await);
    assert_eq!(lost.unwrap_err().stage, Stage::Sent);
}

#[test]
fn a_dropped_call_closes_its_connection() {
    let (address, closed) = server(|n, mut peer| {
        peer.request();
        if n == 1 {
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        }
        peer.is_closed()
    });
    run(client(), async |http| {
        let url = format!("http://{address}/");
        let unanswered = http.send(request("PUT", &url, [1]), Route::default());
        let first = async {
            Timer::after(Duration::from_millis(50)).await;
            None
        };
        assert!(async { Some(unanswered.await) }.or(first).await.is_none());
        let told = crate::pool::unblock(move || (closed.recv().unwrap(), closed));
        let (is_closed, closed) = told.await;
        assert!(is_closed);
        let mut half = http.send(request("GET", &url, []), Route::default()).await.unwrap().into_body();
        assert_eq!(half.next().await.unwrap().unwrap(), "half");
        drop(half);
        assert!(crate::pool::unblock(move || closed.recv().unwrap()).await);
    });
}

#[test]
fn idle_connections_are_closed_when_they_are_old() {
    let (address, closed) = server(|_, mut peer| {
        peer.request();
        peer.say(OK);
        peer.is_closed()
    });
    run(client(), async |http| {
        fetch(http, request("GET", format!("http://{address}/"), [])).await.unwrap();
        let now = Instant::now();
        assert!(http.pool.close_old(now).is_some_and(|next| next <= now + pool::IDLE));
        assert_eq!(http.pool.close_old(now + pool::IDLE), None);
        assert!(crate::pool::unblock(move || closed.recv().unwrap()).await);
    });
}

#[test]
fn silence_ends_a_call() {
    let (address, _) = server(|_, mut peer| {
        if peer.request().unwrap().head.starts_with("GET") {
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        }
        peer.is_closed()
    });
    let mut http = client();
    http.stall = Duration::from_millis(50);
    run(http, async |http| {
        for method in ["PUT", "GET"] {
            let silent = fetch(http, request(method, format!("http://{address}/"), [])).await.unwrap_err();
            assert_eq!(silent.stage, Stage::Sent, "{method}: {silent}");
            assert!(silent.cause.contains("nothing came"), "{silent}");
        }
    });
}

#[test]
fn streamed_bodies_are_sent_as_announced() {
    let (address, _) = server(|_, mut peer| {
        while let Some(seen) = peer.request() {
            assert!(!seen.head.to_ascii_lowercase().contains("chunked"), "{}", seen.head);
            peer.say(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", seen.body.len()));
            let _ = peer.stream.get_mut().write_all(&seen.body);
        }
    });
    run(client(), async |http| {
        let send = async |len: u64, chunks: &[&'static str]| {
            let chunks: Vec<_> =
                chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk.as_bytes()))).collect();
            let body = Body::stream(len, stream::iter(chunks));
            let request = Request::put(format!("http://{address}/")).body(body).unwrap();
            fetch(http, request).await
        };
        assert_eq!(send(5, &["ab", "", "cde"]).await, Ok((200, b"abcde".to_vec())));
        assert_eq!(send(0, &[]).await, Ok((200, Vec::new())));
        assert!(send(6, &["ab", "cde"]).await.is_err());
        assert!(send(4, &["ab", "cde"]).await.is_err());
    });
}

#[test]
fn redirects_are_followed_where_nothing_changes() {
    let (elsewhere, seen) = server(|_, mut peer| {
        let seen = peer.request();
        peer.say(OK);
        seen.unwrap().head
    });
    let (address, _) = server(move |_, mut peer| {
        while let Some(seen) = peer.request() {
            let to = match seen.head.split(' ').nth(1).unwrap() {
                "/here" => "there".to_string(),
                "/there" => format!("http://{elsewhere}/x"),
                _ => "/loop".to_string(),
            };
            peer.say(&format!("HTTP/1.1 307 Moved\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"));
        }
    });
    run(client(), async |http| {
        let get = async |path: &str| {
            let url = format!("http://{address}{path}");
            let request = Request::get(url).header("Authorization", "secret").body(()).unwrap();
            http.follow(request, Route::default()).await.map(|answer| answer.status().as_u16())
        };
        assert_eq!(get("/here").await, Ok(200));
        let head = seen.recv().unwrap();
        assert!(head.starts_with("GET /x ") && !head.contains("secret"), "{head}");
        assert!(get("/loop").await.unwrap_err().cause.contains("redirects"));
        let put = fetch(http, request("PUT", format!("http://{address}/here"), [])).await;
        assert_eq!(put.unwrap().0, 307);
    });
}

#[test]
fn plain_requests_name_the_whole_url_to_a_proxy() {
    let (address, seen) = server(|_, mut peer| {
        let seen = peer.request();
        peer.say(OK);
        seen.unwrap().head
    });
    let mut http = client();
    let value = format!("http://user:word@{address}");
    http.proxies = OnceLock::from(Proxies::from_env(|name| (name == "http_proxy").then(|| value.clone())));
    run(http, async |http| {
        assert!(fetch(http, request("GET", "http://store.invalid:81/a?b", [])).await.is_ok());
        let head = seen.recv().unwrap();
        assert!(head.starts_with("GET http://store.invalid:81/a?b HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("host: store.invalid:81\r\n"), "{head}");
        assert!(head.contains("proxy-authorization: Basic "), "{head}");
    });
}

mod tls {
    use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
    use futures_rustls::TlsAcceptor;
    use futures_rustls::pki_types::PrivateKeyDer;
    use futures_rustls::rustls::ServerConfig;
    use futures_rustls::rustls::crypto::ring::default_provider;
    use smol::Async;

    use super::*;

    /// Answers one request over TLS on each connection; the certificate's PEM comes with it.
    fn secure_server(http: &Arc<Http>) -> (SocketAddr, String) {
        let made = rcgen::generate_simple_self_signed(vec!["store.test".into()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = Async::<TcpListener>::bind(([127, 0, 0, 1], 0)).unwrap();
        let address = listener.get_ref().local_addr().unwrap();
        let serve = async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(tcp).await else { continue };
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(OK.as_bytes()).await;
                let _ = stream.close().await;
            }
        };
        http.executor.spawn(serve).detach();
        (address, made.cert.pem())
    }

    /// A client that reaches any TLS server through a proxy of ours, which takes them all to the
    /// same one: so names need no resolver.
    fn through_proxy(
        bundle: Option<String>,
    ) -> (Http, std::sync::mpsc::Sender<SocketAddr>, Receiver<String>) {
        let (route, target) = channel::<SocketAddr>();
        let mut to = None;
        let (proxy, seen) = server(move |_, mut peer| {
            let head = peer.head().unwrap();
            let to = *to.get_or_insert_with(|| target.recv().unwrap());
            let mut up = TcpStream::connect(to).unwrap();
            peer.say("HTTP/1.1 200 Connection established\r\n\r\n");
            let mut down = peer.stream.into_inner();
            let (mut down_again, mut up_again) = (down.try_clone().unwrap(), up.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut down, &mut up));
            thread::spawn(move || std::io::copy(&mut up_again, &mut down_again));
            head
        });
        let mut http = client();
        http.proxies =
            OnceLock::from(Proxies::from_env(|name| (name == "HTTPS_PROXY").then(|| format!("u:p@{proxy}"))));
        let path =
            std::env::temp_dir().join(format!("driftless-ca-{}-{}.pem", std::process::id(), proxy.port()));
        http.tls = super::super::tls::Tls::new(bundle.map(|pem| {
            std::fs::write(&path, pem).unwrap();
            path
        }));
        (http, route, seen)
    }

    #[test]
    fn certificates_are_checked_unless_told_otherwise() {
        let (http, route, seen) = through_proxy(None);
        run(http, async |http| {
            let (address, _) = secure_server(http);
            route.send(address).unwrap();
            let get = async |skip_verify| {
                let request = request("GET", "https://store.test/", []);
                http.send(request, Route { skip_verify, direct: false }).await.map(|answer| answer.status())
            };
            assert_eq!(get(false).await.unwrap_err().stage, Stage::Untrusted);
            assert_eq!(get(true).await.unwrap(), StatusCode::OK);
            let head = seen.recv().unwrap();
            assert!(head.starts_with("CONNECT store.test:443 HTTP/1.1\r\n"), "{head}");
            assert!(head.contains("Proxy-Authorization: Basic "), "{head}");
        });
    }

    #[test]
    fn a_bundle_adds_to_whom_is_trusted() {
        let maker = client();
        let executor = Arc::clone(&maker.executor);
        let (address, pem) = secure_server(&Arc::new(maker));
        let (mut http, route, _) = through_proxy(Some(pem));
        http.executor = executor;
        route.send(address).unwrap();
        run(http, async |http| {
            let get = async |host: &str| fetch(http, request("GET", format!("https://{host}/"), [])).await;
            assert_eq!(get("store.test").await, Ok((200, b"ok".to_vec())));
            let other = get("other.test").await.unwrap_err();
            assert_eq!(other.stage, Stage::Untrusted, "{other}");
        });
    }

    #[test]
    fn a_bundle_that_is_none_is_said() {
        let (http, route, _) = through_proxy(Some("no certificate".into()));
        run(http, async |http| {
            let (address, _) = secure_server(http);
            route.send(address).unwrap();
            let failure = fetch(http, request("GET", "https://store.test/", [])).await.unwrap_err();
            assert_eq!(failure.stage, Stage::Setup);
            assert!(failure.cause.starts_with("AWS_CA_BUNDLE: "), "{failure}");
        });
    }

    #[test]
    fn a_proxy_that_refuses_is_quoted() {
        let (proxy, _) = server(|_, mut peer| {
            peer.head();
            peer.say("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n");
        });
        let mut http = client();
        http.proxies =
            OnceLock::from(Proxies::from_env(|name| (name == "HTTPS_PROXY").then(|| proxy.to_string())));
        run(http, async |http| {
            let failure = fetch(http, request("PUT", "https://store.test/", [])).await.unwrap_err();
            assert_eq!(failure.stage, Stage::Unsent);
            assert!(failure.cause.contains("407"), "{failure}");
        });
    }
}
