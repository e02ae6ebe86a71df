//! A name server that does as it is told, over UDP: it also lies, is silent, and talks nonsense.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, Record};

/// What comes back for a question: any number of datagrams.
pub type Replies = Vec<Vec<u8>>;

#[derive(Debug)]
pub struct RawDns {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl RawDns {
    pub fn start(reply: impl FnMut(&Message) -> Replies + Send + 'static) -> Self {
        Self::on(UdpSocket::bind("127.0.0.1:0").expect("a free port"), reply)
    }

    /// On the port that resolv.conf means, at a loopback address that nobody else is likely to use; or a skip.
    pub fn at_port_53(last: u8, reply: impl FnMut(&Message) -> Replies + Send + 'static) -> Option<Self> {
        let [a, b, ..] = std::process::id().to_le_bytes();
        let address = SocketAddr::from(([127, a | 0x80, b, last], 53));
        match UdpSocket::bind(address) {
            Ok(socket) => Some(Self::on(socket, reply)),
            Err(error) => {
                super::support::skip("port 53", &format!("{address}: {error}"));
                None
            }
        }
    }

    fn on(socket: UdpSocket, mut reply: impl FnMut(&Message) -> Replies + Send + 'static) -> Self {
        let address = socket.local_addr().expect("it is bound");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout can be set");
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (log, stopped) = (Arc::clone(&asked), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut bytes = [0; 4096];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, peer)) = socket.recv_from(&mut bytes) else { continue };
                let Ok(question) = Message::from_vec(&bytes[..length]) else { continue };
                let query = &question.queries[0];
                log.lock().expect("no test panics with it").push(format!("{} {}", query.name(), query.query_type()));
                for datagram in reply(&question) {
                    socket.send_to(&datagram, peer).expect("the loopback takes it");
                }
            }
        });
        Self { address, asked, stop, thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every question so far: `www.example.test. A`.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no test panics with it").clone()
    }
}

impl Drop for RawDns {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The question, answered.
pub fn answer(question: &Message, code: ResponseCode, ttl: u32, data: &[RData]) -> Message {
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.metadata.response_code = code;
    answer.add_queries(question.queries.clone());
    let name = question.queries[0].name();
    answer.add_answers(data.iter().map(|data| Record::from_rdata(name.clone(), ttl, data.clone())));
    answer
}

pub fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().expect("it can be written")
}
