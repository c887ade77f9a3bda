//! Cursors and states that were changed on their way.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::fuzz::{config, damaged, damages};

fn sealer() -> Sealer {
    Sealer::new(&[7; 32]).expect("a sealer")
}

fn purpose() -> impl Strategy<Value = Purpose> {
    prop_oneof![Just(Purpose::Cursor), Just(Purpose::State)]
}

proptest! {
    #![proptest_config(config(2048))]

    #[test]
    fn what_was_sealed_opens(purpose in purpose(), bound in vec(any::<u8>(), 0..40), plain in vec(any::<u8>(), 0..80)) {
        let text = sealer().seal(purpose, &bound, &plain).expect("sealed");
        prop_assert_eq!(sealer().open(purpose, &bound, &text), Some(plain));
    }

    /// Any other text, be it only another spelling of the same bytes, is refused.
    #[test]
    fn what_was_changed_does_not_open(
        purpose in purpose(), bound in vec(any::<u8>(), 0..40), plain in vec(any::<u8>(), 0..80), damages in damages(3),
    ) {
        let text = sealer().seal(purpose, &bound, &plain).expect("sealed");
        let changed = String::from_utf8_lossy(&damaged(text.as_bytes(), &damages)).into_owned();
        prop_assert!(changed == text || sealer().open(purpose, &bound, &changed).is_none(), "{}", changed);
        for spelling in [format!("{text}="), format!("{text}=="), format!(" {text}"), format!("{text}\n")] {
            prop_assert_eq!(sealer().open(purpose, &bound, &spelling), None);
        }
    }

    #[test]
    fn what_is_bound_elsewhere_does_not_open(
        purpose in purpose(), bound in vec(any::<u8>(), 0..40), damages in damages(3), plain in vec(any::<u8>(), 0..80),
    ) {
        let text = sealer().seal(purpose, &bound, &plain).expect("sealed");
        let elsewhere = damaged(&bound, &damages);
        prop_assert!(elsewhere == bound || sealer().open(purpose, &elsewhere, &text).is_none());
        let other = if purpose == Purpose::Cursor { Purpose::State } else { Purpose::Cursor };
        prop_assert_eq!(sealer().open(other, &bound, &text), None);
    }

    #[test]
    fn made_up_texts_do_not_open(purpose in purpose(), text in "[A-Za-z0-9_-]{0,120}|.{0,60}") {
        prop_assert_eq!(sealer().open(purpose, b"", &text), None);
    }
}
