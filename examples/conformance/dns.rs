//! A DNS server with one name, so that `dns_resolve` works without a network.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::A;
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use tokio::net::UdpSocket;
use weir::tasks::Tasks;

/// The one name. Below `test.weir`, every other one does not exist.
const NAME: &str = "host.test.weir.";
/// Its address, from the range for documentation (RFC 5737).
const ADDRESS: A = A(Ipv4Addr::new(192, 0, 2, 7));
/// Largest question that is read, in bytes; larger ones do not come over UDP without EDNS options we never offer.
const MAX_QUESTION: usize = 4096;

/// Answers on a loopback port of its own until the tasks stop.
pub(crate) async fn serve(tasks: &Tasks) -> io::Result<SocketAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = socket.local_addr()?;
    let stopping = tasks.stopping().clone();
    tasks.spawn(async move {
        let mut buffer = [0; MAX_QUESTION];
        loop {
            let received = tokio::select! {
                () = stopping.cancelled() => return,
                received = socket.recv_from(&mut buffer) => received,
            };
            let Ok((length, peer)) = received else { continue };
            if let Some(reply) = Message::from_vec(&buffer[..length]).ok().and_then(|asked| answer(&asked)) {
                // Whoever does not hear it asks again.
                let _ = socket.send_to(&reply, peer).await;
            }
        }
    });
    Ok(address)
}

fn answer(asked: &Message) -> Option<Vec<u8>> {
    let query = asked.queries.first()?;
    let mut reply = Message::response(asked.id, OpCode::Query);
    reply.add_query(query.clone());
    match (query.name().to_lowercase().to_ascii().as_str(), query.query_type()) {
        (NAME, RecordType::A) => {
            reply.add_answer(Record::from_rdata(query.name().clone(), 300, RData::A(ADDRESS)));
        }
        (NAME, _) => {}
        _ => reply.metadata.response_code = ResponseCode::NXDomain,
    }
    reply.to_vec().ok()
}
