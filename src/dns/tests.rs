//! Against a DNS server of our own on a loopback port.

use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Instant;

use hickory_resolver::proto::op::{Message, OpCode};
use hickory_resolver::proto::rr::Record as WireRecord;
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, MX, NS, PTR, SRV};
use tokio::net::UdpSocket;

use super::*;
use crate::config::Millis;
use crate::tasks::Tasks;

fn name(text: &str) -> Name {
    Name::from_str(text).expect("a name")
}

fn zone(asked: &str, kind: WireType) -> Option<Vec<(&'static str, RData)>> {
    let own = "www.example.test.";
    let records = match (asked, kind) {
        ("www.example.test.", WireType::A) => vec![
            (own, RData::A(A::new(192, 0, 2, 9))),
            (own, RData::A(A::new(192, 0, 2, 10))),
            (own, RData::A(A::new(192, 0, 2, 9))),
        ],
        ("www.example.test.", WireType::AAAA) => {
            vec![(own, RData::AAAA(AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)))]
        }
        ("www.example.test.", _) => vec![],
        ("alias.example.test.", WireType::A) => vec![
            ("alias.example.test.", RData::CNAME(CNAME(name("WWW.example.test.")))),
            (own, RData::A(A::new(192, 0, 2, 9))),
        ],
        ("alias.example.test.", WireType::CNAME) => {
            vec![("alias.example.test.", RData::CNAME(CNAME(name("WWW.example.test."))))]
        }
        ("example.test.", WireType::MX) => vec![
            ("example.test.", RData::MX(MX::new(20, name("b.example.test.")))),
            ("example.test.", RData::MX(MX::new(10, name("z.example.test.")))),
        ],
        ("example.test.", WireType::NS) => vec![("example.test.", RData::NS(NS(name("ns.example.test."))))],
        ("example.test.", WireType::TXT) => vec![
            ("example.test.", RData::TXT(TXT::from_bytes(vec![b"v=spf1 ", b"-all"]))),
            ("example.test.", RData::TXT(TXT::from_bytes(vec![b"a\\b\x07\xff caf\xc3\xa9"]))),
        ],
        ("_imap._tcp.example.test.", WireType::SRV) => {
            vec![("_imap._tcp.example.test.", RData::SRV(SRV::new(1, 2, 143, name("imap.example.test."))))]
        }
        ("9.2.0.192.in-addr.arpa.", WireType::PTR) => {
            vec![("9.2.0.192.in-addr.arpa.", RData::PTR(PTR(name(own))))]
        }
        ("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.", WireType::PTR) => {
            vec![(
                "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.",
                RData::PTR(PTR(name(own))),
            )]
        }
        _ => return None,
    };
    Some(records)
}

/// Answers from [`zone`]; `broken.test` fails, `silent.test` is never answered.
fn answer(question: &Message) -> Option<Message> {
    let query = question.queries.first()?;
    let asked = query.name().to_lowercase().to_ascii();
    let mut reply = Message::response(question.id, OpCode::Query);
    reply.add_query(query.clone());
    match (asked.as_str(), zone(&asked, query.query_type())) {
        ("silent.test.", _) => return None,
        ("broken.test.", _) => reply.metadata.response_code = ResponseCode::ServFail,
        (_, None) => reply.metadata.response_code = ResponseCode::NXDomain,
        (_, Some(records)) => {
            for (owner, data) in records {
                reply.add_answer(WireRecord::from_rdata(name(owner), 300, data));
            }
        }
    }
    Some(reply)
}

async fn resolver(tasks: &Tasks) -> Resolver {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = socket.local_addr().expect("an address");
    tasks.spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            let question = Message::from_vec(&buffer[..length]).expect("a message");
            if let Some(reply) = answer(&question) {
                let bytes = reply.to_vec().expect("an answer");
                socket.send_to(&bytes, peer).await.expect("sending it");
            }
        }
    });
    Resolver::new(&Dns { resolvers: vec![address], timeout: Millis::new(600) }).expect("a resolver")
}

fn values(answer: &Answer) -> Vec<&str> {
    answer.records.iter().map(|record| record.value.as_str()).collect()
}

#[tokio::test]
async fn every_record_type_is_answered() {
    let resolver = resolver(&Tasks::new()).await;
    for (asked, kind, expected) in [
        ("www.example.test", RecordType::A, &["192.0.2.10", "192.0.2.9"][..]),
        (" WWW.Example.test. ", RecordType::A, &["192.0.2.10", "192.0.2.9"]),
        ("www.example.test", RecordType::Aaaa, &["2001:db8::1"]),
        ("alias.example.test", RecordType::A, &["192.0.2.9"]),
        ("alias.example.test", RecordType::Cname, &["www.example.test"]),
        ("example.test", RecordType::Mx, &["z.example.test", "b.example.test"]),
        ("example.test", RecordType::Ns, &["ns.example.test"]),
        ("example.test", RecordType::Txt, &["a\\\\b\\007\\255 café", "v=spf1 -all"]),
        ("_imap._tcp.example.test", RecordType::Srv, &["imap.example.test"]),
        ("192.0.2.9", RecordType::Ptr, &["www.example.test"]),
        ("9.2.0.192.in-addr.arpa", RecordType::Ptr, &["www.example.test"]),
        ("2001:db8::1", RecordType::Ptr, &["www.example.test"]),
    ] {
        let found = resolver.lookup(asked, kind).await.unwrap_or_else(|e| panic!("{asked} {kind:?}: {e}"));
        assert_eq!(values(&found), expected, "{asked} {kind:?}");
        assert!(found.records.iter().all(|record| (295..=300).contains(&record.ttl_seconds)));
    }
}

#[tokio::test]
async fn an_answer_looks_like_this() {
    let resolver = resolver(&Tasks::new()).await;
    let mut found = resolver.lookup("_imap._tcp.Example.test", RecordType::Srv).await.expect("an answer");
    found.records[0].ttl_seconds = 300;
    assert_eq!(
        serde_json::to_string(&found).expect("JSON"),
        r#"{"name":"_imap._tcp.example.test","record_type":"SRV","records":[{"priority":1,"weight":2,"port":143,"value":"imap.example.test","ttl_seconds":300}]}"#
    );
    let reverse = resolver.lookup("192.0.2.9", RecordType::Ptr).await.expect("an answer");
    assert_eq!(reverse.name, "9.2.0.192.in-addr.arpa");
    let schema = serde_json::to_string(&schemars::schema_for!(RecordType)).expect("JSON");
    for kind in ["\"A\"", "\"AAAA\"", "\"CNAME\"", "\"MX\"", "\"TXT\"", "\"NS\"", "\"SRV\"", "\"PTR\""] {
        assert!(schema.contains(kind), "{schema}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_an_ordinary_answer() {
    let resolver = resolver(&Tasks::new()).await;
    for (asked, kind, expected) in [
        ("absent.example.test", RecordType::A, LookupError::NoSuchName),
        ("www.example.test", RecordType::Mx, LookupError::NoRecords),
        ("broken.test", RecordType::A, LookupError::ServerFailure),
        ("silent.test", RecordType::A, LookupError::Timeout),
    ] {
        let started = Instant::now();
        let found = resolver.lookup(asked, kind).await.expect_err(asked);
        assert_eq!(found, expected, "{asked}");
        assert!(started.elapsed() < Duration::from_millis(900), "{asked}: {:?}", started.elapsed());
        assert!(found.advice().len() > 20);
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_in_time() {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = socket.local_addr().expect("an address");
    drop(socket);
    let resolver =
        Resolver::new(&Dns { resolvers: vec![address], timeout: Millis::new(300) }).expect("a resolver");
    let error = resolver.lookup("www.example.test", RecordType::A).await.expect_err("nobody answers");
    assert!(matches!(error, LookupError::Timeout | LookupError::ServerFailure), "{error:?}");
}

#[test]
fn bad_names_say_what_to_do() {
    let long_label = format!("{}.test", "a".repeat(64));
    let long_name = format!("{}test", "abcdefg.".repeat(32));
    for (asked, kind, part) in [
        ("", RecordType::A, "empty"),
        (".", RecordType::A, "empty"),
        ("https://example.com/x", RecordType::A, "without scheme"),
        ("example.com:443", RecordType::A, "without scheme"),
        ("me@example.com", RecordType::Mx, "without scheme"),
        ("bücher.example", RecordType::A, "xn--"),
        ("exa mple.com", RecordType::A, "only letters"),
        ("a\\046b.test", RecordType::A, "only letters"),
        ("a..b", RecordType::A, "empty part"),
        (long_label.as_str(), RecordType::A, "63"),
        (long_name.as_str(), RecordType::A, "253"),
        ("192.0.2.1", RecordType::A, "PTR"),
        ("::1", RecordType::Aaaa, "PTR"),
        ("example.com", RecordType::Ptr, "IP address"),
    ] {
        match question(asked, kind) {
            Err(LookupError::BadName(text)) => assert!(text.contains(part), "{asked}: {text}"),
            other => panic!("{asked}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn the_systems_servers_are_the_default() {
    // Whether the machine has any is its own matter; neither may panic.
    let _ = Resolver::new(&Dns { resolvers: Vec::new(), timeout: Millis::new(100) });
}
