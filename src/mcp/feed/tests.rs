//! A feed against a model of a client that loses what it read.

use proptest::prelude::*;

use super::*;

fn answering(store: &Arc<Store>) -> Arc<Feed> {
    Feed::kept(StreamId::Reply(1), Some(RequestId::integer(7)), true, store.clone())
}

fn store(bytes: usize) -> Arc<Store> {
    Memory::with(bytes, 1 << 20, 1 << 20).store()
}

/// The number of the event, and what it says.
fn read_event(frame: &Bytes) -> (u64, String) {
    let text = std::str::from_utf8(frame).expect("UTF-8");
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("").to_owned();
    let seq = field("id: ").parse::<EventId>().map_or(0, |id| id.seq);
    (seq, field("data: "))
}

#[derive(Debug, Clone)]
enum Deed {
    Say,
    Must,
    Read(usize),
    /// The client lost what it read since then, and comes back.
    Break(u64),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        Just(Deed::Say),
        Just(Deed::Must),
        (1..6_usize).prop_map(Deed::Read),
        (0..4_u64).prop_map(Deed::Break),
    ];
    proptest::collection::vec(deed, 0..200)
}

proptest! {
    #![proptest_config(crate::fuzz::config(256))]

    #[test]
    fn every_event_is_read_once_and_in_order_whenever_the_connection_breaks(deeds in deeds()) {
        let store = store(1 << 20);
        let feed = answering(&store);
        let (mut said, mut got) = (Vec::new(), Vec::new());
        let mut reader = feed.read(0);
        for deed in deeds {
            match deed {
                Deed::Say | Deed::Must => {
                    let text = format!("{}", said.len());
                    if matches!(deed, Deed::Say) {
                        prop_assert!(feed.say(&text));
                    } else {
                        prop_assert_eq!(feed.must(&text), Ok(()));
                    }
                    said.push(text);
                }
                Deed::Read(times) => {
                    for _ in 0..times {
                        if let Some(Step::Event(frame)) = reader.try_next() {
                            got.push(read_event(&frame));
                        }
                    }
                }
                Deed::Break(lost) => {
                    got.truncate(got.len().saturating_sub(usize::try_from(lost).expect("small")));
                    reader = feed.read(got.last().map_or(0, |(seq, _)| *seq));
                }
            }
        }
        feed.end(Some("end"));
        said.push("end".to_owned());
        while let Some(Step::Event(frame)) = reader.try_next() {
            got.push(read_event(&frame));
        }
        prop_assert_eq!(reader.try_next(), Some(Step::End));
        let numbered: Vec<_> = (1..).zip(said).collect();
        prop_assert_eq!(got, numbered);
    }

    #[test]
    fn what_is_kept_is_counted_and_bounded(deeds in deeds()) {
        let store = store(600);
        let feed = answering(&store);
        let mut reader = feed.read(0);
        for deed in deeds {
            match deed {
                Deed::Say | Deed::Must => {
                    let _ = feed.say(&"x".repeat(40));
                }
                Deed::Read(times) => (0..times).for_each(|_| drop(reader.try_next())),
                Deed::Break(back) => reader = feed.read(back),
            }
            prop_assert_eq!(store.used(), feed.bytes());
            prop_assert!(feed.bytes() <= 600 + 2 * 100, "{}", feed.bytes());
        }
        drop((reader, feed));
        prop_assert_eq!(store.used(), 0);
    }
}

#[test]
fn what_may_be_lost_is_dropped_before_what_must_arrive() {
    let feed = Feed::passing();
    let taken = (0..1000).filter(|_| feed.say("0")).count() as u64;
    assert_eq!(taken, ROOM);
    let more = (0..1000).take_while(|_| feed.must("0").is_ok()).count() as u64;
    assert_eq!(taken + more, MAX_WAITING);
    assert_eq!(feed.must("0"), Err(Undeliverable::Full));
    feed.end(Some("the end is always taken"));
    assert_eq!(feed.must("0"), Err(Undeliverable::Ended));
    let mut reader = feed.read(0);
    let read = std::iter::from_fn(|| reader.try_next()).take_while(|step| *step != Step::End).count() as u64;
    assert_eq!((read, feed.bytes()), (MAX_WAITING + 1, 0));
}

#[test]
fn an_answer_that_was_given_up_is_answered_for() {
    let store = store(1 << 20);
    let feed = answering(&store);
    feed.say("1");
    let first = feed.read(0);
    feed.end(Some("2"));
    assert!(!feed.forget(), "somebody reads it");
    drop(first);
    assert!(feed.forget());
    assert_eq!(store.used(), 0);
    let Some(Step::Event(apology)) = feed.read(0).try_next() else { panic!("no apology") };
    assert!(read_event(&apology).1.contains("-31008"));
    assert_eq!(feed.read(2).try_next(), Some(Step::End), "whoever had it all needs none");
}

#[test]
fn a_connection_pauses_once_and_only_where_the_client_knows() {
    let feed = answering(&store(1 << 20));
    feed.say("1");
    feed.pause();
    let mut reader = feed.read(0);
    assert!(matches!(reader.try_next(), Some(Step::Event(_))));
    assert_eq!(reader.try_next(), Some(Step::Pause));
    assert_eq!(feed.read(1).try_next(), None);
    let ignorant = Feed::kept(StreamId::Reply(2), None, false, store(1 << 20));
    ignorant.pause();
    assert!(ignorant.is_silent());
}

#[test]
fn a_full_store_gives_up_the_oldest_idle_feeds_of_its_tenant() {
    let memory = Memory::with(100, 10_000, 1 << 20);
    let (mine, other) = (memory.store(), memory.store());
    let say = |store: &Arc<Store>, number| {
        let feed =
            Feed::kept(StreamId::Reply(number), Some(RequestId::integer(number)), false, store.clone());
        feed.end(Some(&"x".repeat(3000)));
        feed
    };
    let theirs = say(&other, 1);
    let feeds: Vec<_> = (1..=5).map(|number| say(&mine, number)).collect();
    let held: Vec<_> = feeds.iter().map(|feed| feed.bytes() > 0).collect();
    assert_eq!(
        held,
        [false, false, true, true, true],
        "an answer larger than a session's share is kept, too"
    );
    assert!(mine.used() <= 10_000 && theirs.bytes() > 0);
    let reader = feeds[2].read(0);
    let next = say(&mine, 6);
    assert!(feeds[2].bytes() > 0 && feeds[3].bytes() == 0, "one that is read is no longer idle");
    drop(reader);
    let last = say(&mine, 7);
    assert_eq!((feeds[4].bytes(), feeds[2].bytes() > 0), (0, true), "it queues again, at the end");
    drop((feeds, next, last, theirs));
    assert_eq!((mine.used(), memory.used()), (0, 0));
}

#[test]
fn a_reader_that_comes_back_far_behind_does_not_fill_the_feed() {
    let feed = Feed::kept(StreamId::Listen(1), None, false, store(1 << 20));
    let mut reader = feed.read(0);
    for _ in 0..2000 {
        feed.must("0").expect("room");
        reader.try_next();
    }
    let late = feed.read(3);
    assert!(late.missed());
    assert_eq!(feed.must("0"), Ok(()));
    assert!(!feed.read(1999).missed());
}

#[test]
fn what_was_handed_out_long_ago_is_given_up() {
    let feed = answering(&store(1 << 20));
    let mut reader = feed.read(0);
    feed.say("1");
    reader.try_next();
    feed.age(0, 10);
    feed.say("2");
    reader.try_next();
    feed.age(9, 10);
    assert_eq!(feed.state().events.len(), 2);
    feed.age(10, 10);
    assert_eq!(feed.state().events.len(), 1);
    feed.age(20, 10);
    assert_eq!(feed.bytes(), 0);
}

#[test]
fn a_full_store_ends_nobody_who_reads() {
    let store = Memory::with(4096, 10_000, 1 << 30).store();
    let live = |seq| Feed::kept(StreamId::Listen(seq), None, false, store.clone());
    let (hog, small) = (live(1), live(2));
    let _reads = (hog.read(0), small.read(0));
    assert_eq!(hog.must(&"x".repeat(2 << 20)), Ok(()));
    assert!(store.is_full());
    assert_eq!((small.must("1"), small.must("2"), small.must("3")), (Ok(()), Ok(()), Ok(())));
    assert_eq!(hog.must("more"), Err(Undeliverable::Full));
}

#[test]
fn what_waits_is_bounded_in_bytes_too() {
    let store = Memory::with(1 << 30, 1 << 30, 1 << 30).store();
    let feed = Feed::kept(StreamId::Session(crate::id::SessionRowId::new()), None, false, store);
    let large = "x".repeat(3 << 20);
    assert_eq!((feed.must(&large), feed.must(&large)), (Ok(()), Ok(())));
    assert_eq!(feed.must("0"), Err(Undeliverable::Full));
}
