//! The admin socket: what is asked arrives, what is answered comes back, and nobody can wear the peer out.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use grapevine_peer::admin::{
    AdminCall, AdminClient, AdminClientError, AdminRequest, AdminResponse, AdminServer, AdminSocketError,
    CONNECTIONS_MAX, REQUEST_BYTES_MAX, SOCKET_NAME, Status, WireRequest,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A served socket whose driver answers `status` and joins channel `trade`.
struct Served {
    stop: CancellationToken,
    serving: JoinHandle<()>,
    joined: mpsc::Receiver<Bytes>,
}

fn serve(directory: &Path) -> Served {
    let server = AdminServer::bind(directory).unwrap();
    let (calls, mut requests) = mpsc::channel::<AdminCall>(4);
    let (joins, joined) = mpsc::channel(16);
    let stop = CancellationToken::new();
    let serving = tokio::spawn(server.serve(calls, stop.clone()));
    tokio::spawn(async move {
        while let Some(AdminCall { request, answer }) = requests.recv().await {
            let response = match request {
                AdminRequest::Status => {
                    let status = Status { peer: "peer0".to_owned(), ..Status::default() };
                    AdminResponse::Status(Box::new(status))
                }
                AdminRequest::JoinByAnchor { channel, anchor, genesis_hash } => {
                    let joined = format!("{channel} {anchor} {genesis_hash}");
                    AdminResponse::Joined { joined }
                }
                AdminRequest::Repair { channel, ranges } => {
                    assert_eq!((channel.as_str(), ranges.as_slice()), ("trade", [(2, 5)].as_slice()));
                    AdminResponse::Repairing { repairing: 4 }
                }
                AdminRequest::Join { block } if block.is_empty() => {
                    AdminResponse::Error { error: "empty block; give another".to_owned() }
                }
                AdminRequest::Join { block } => {
                    joins.send(block).await.unwrap();
                    AdminResponse::Joined { joined: "trade".to_owned() }
                }
            };
            let _client_gone = answer.send(response);
        }
    });
    Served { stop, serving, joined }
}

/// Runs blocking client code beside the server.
async fn client<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(ask).await.unwrap()
}

async fn raw(path: PathBuf, request: Vec<u8>) -> String {
    client(move || {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        // The server may answer and close before it has read everything.
        let _closed = stream.write_all(&request);
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        answer
    })
    .await
}

#[tokio::test]
async fn status_and_join_go_through() {
    let directory = tempfile::tempdir().unwrap();
    let mut served = serve(directory.path());
    let path = directory.path().join(SOCKET_NAME);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    let asking = AdminClient::new(directory.path());
    let for_task = asking.clone();
    assert_eq!(client(move || for_task.status().unwrap()).await.peer, "peer0");
    let block = vec![10u8; 300_000];
    let (for_task, sent) = (asking.clone(), block.clone());
    assert_eq!(client(move || for_task.join(&sent).unwrap()).await, "trade");
    assert_eq!(served.joined.recv().await.unwrap(), block);

    let for_task = asking.clone();
    let joined = client(move || for_task.join_by_anchor("trade", "localhost:7051", "ab12").unwrap()).await;
    assert_eq!(joined, "trade localhost:7051 ab12");

    let file = directory.path().join("genesis.block");
    std::fs::write(&file, b"\nblock").unwrap();
    let by_path = WireRequest::Join { block: file.to_str().unwrap().to_owned() };
    let for_task = asking.clone();
    let answer = client(move || for_task.ask(&by_path).unwrap()).await;
    assert_eq!(answer, AdminResponse::Joined { joined: "trade".to_owned() });
    assert_eq!(served.joined.recv().await.unwrap().as_ref(), b"\nblock");

    let refused = client(move || asking.join(b"").unwrap_err()).await;
    assert!(matches!(&refused, AdminClientError::Refused(why) if why.contains("empty")), "{refused}");

    served.stop.cancel();
    served.serving.await.unwrap();
    assert!(!path.exists());
    let left: Vec<_> =
        std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["genesis.block"]);
}

#[tokio::test]
async fn nonsense_gets_an_error_and_the_next_client_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let _served = serve(directory.path());
    let path = directory.path().join(SOCKET_NAME);
    for request in [
        "\n",
        "status\n",
        "{\"command\":\"stop\"}\n",
        "{\"command\":\"join\"}\n",
        "{\"command\":\"join\",\"block\":\"???\"}\n",
        "{\"command\":\"join\",\"block\":\"/no/such/file\"}\n",
        "\u{ff}\n",
    ] {
        let answer = raw(path.clone(), request.as_bytes().to_vec()).await;
        assert!(answer.starts_with("{\"error\":"), "{request:?} -> {answer:?}");
    }
    let answer = raw(path.clone(), vec![b'x'; REQUEST_BYTES_MAX + 2]).await;
    assert!(answer.contains("too long"), "{answer:?}");
    let answer = raw(path, b"{\"command\":\"status\"}\n".to_vec()).await;
    assert!(answer.contains("peer0"), "{answer:?}");
}

#[tokio::test]
async fn silent_connections_take_the_places_and_the_next_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let _served = serve(directory.path());
    let path = directory.path().join(SOCKET_NAME);
    let silent: Vec<_> = (0..CONNECTIONS_MAX).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let asking = AdminClient::new(directory.path());
    let for_task = asking.clone();
    let refused = client(move || for_task.status().unwrap_err()).await;
    assert!(matches!(&refused, AdminClientError::Refused(why) if why.contains("try again")), "{refused}");
    drop(silent);
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        let for_task = asking.clone();
        if client(move || for_task.status().is_ok()).await {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "places were not given back");
    }
}

#[tokio::test]
async fn a_driver_that_drops_the_question_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let server = AdminServer::bind(directory.path()).unwrap();
    let (calls, requests) = mpsc::channel::<AdminCall>(1);
    drop(requests);
    let stop = CancellationToken::new();
    let serving = tokio::spawn(server.serve(calls, stop.clone()));
    let asking = AdminClient::new(directory.path());
    let refused = client(move || asking.status().unwrap_err()).await;
    assert!(matches!(&refused, AdminClientError::Refused(why) if why.contains("shutting down")), "{refused}");
    stop.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn a_live_socket_is_kept_and_a_stale_one_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(SOCKET_NAME);
    // What a killed peer leaves: the file of a socket nobody listens on.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let asking = AdminClient::new(directory.path());
    let for_task = asking.clone();
    assert!(matches!(client(move || for_task.status()).await, Err(AdminClientError::NotRunning { .. })));

    let _served = serve(directory.path());
    assert!(matches!(AdminServer::bind(directory.path()), Err(AdminSocketError::InUse { .. })));
    assert_eq!(client(move || asking.status().unwrap()).await.peer, "peer0");
}

#[tokio::test]
async fn something_else_under_the_sockets_name_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(SOCKET_NAME);
    std::fs::write(&path, b"precious").unwrap();
    let refused = AdminServer::bind(directory.path()).unwrap_err();
    assert!(matches!(refused, AdminSocketError::NotASocket { .. }), "{refused}");
    let mut content = String::new();
    std::fs::File::open(&path).unwrap().read_to_string(&mut content).unwrap();
    assert_eq!(content, "precious");
    let missing = AdminServer::bind(&directory.path().join("missing")).unwrap_err();
    assert!(matches!(missing, AdminSocketError::Io { .. }), "{missing}");
}

#[tokio::test]
async fn a_path_longer_than_a_socket_address_works() {
    let directory = tempfile::tempdir().unwrap();
    let deep = directory.path().join("d".repeat(120)).join("e".repeat(120));
    std::fs::create_dir_all(&deep).unwrap();
    let _served = serve(&deep);
    let asking = AdminClient::new(&deep);
    assert_eq!(client(move || asking.status().unwrap()).await.peer, "peer0");
}
