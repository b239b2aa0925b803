use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const A: &str = "aaaaaaaa-aaaa-4aaa-8aaa-000000013600";
const B: &str = "b0c0e85c-e4db-11f1-922c-02fc00000001";

fn set(text: &str) -> GtidSet {
    text.replace('A', A).replace('B', B).parse().unwrap()
}

fn position(text: &str) -> GtidPosition {
    text.parse().unwrap()
}

#[test]
fn sets_are_read_and_printed_as_the_server_prints_them() {
    for (text, printed) in [
        ("", ""),
        (" \n ", ""),
        ("A:1", "A:1"),
        ("A:1-1", "A:1"),
        ("A:1-5:7-9", "A:1-5:7-9"),
        ("A:7-9:1-5", "A:1-5:7-9"),
        ("A:1-5:6-9", "A:1-9"),
        ("A:1-5:3-9:20", "A:1-9:20"),
        ("B:1,\nA:1-2", "A:1-2,B:1"),
        ("A:1 , A:2", "A:1-2"),
        ("A:lane:1-3", "A:lane:1-3"),
        ("A:1-3:lane_1:4:x:9,A:lane_1:5", "A:1-3:lane_1:4-5:x:9"),
        ("A:LOCK:1", "A:lock:1"),
        (",A:1,,", "A:1"),
        ("A:1-9223372036854775806", "A:1-9223372036854775806"),
    ] {
        let printed = printed.replace('A', A).replace('B', B);
        assert_eq!(set(text).to_string(), printed, "{text}");
        assert_eq!(set(&printed), set(text));
    }
    let upper = A.to_uppercase().replace('-', "") + ":1";
    assert_eq!(upper.parse::<GtidSet>().unwrap(), set("A:1"));
}

#[test]
fn what_is_no_set_is_refused() {
    for bad in [
        "A",
        "A:",
        "A:0",
        "A:2-1",
        "A:1-",
        "A:-1",
        "A:1--2",
        "A:+1",
        "A:9223372036854775807",
        "A:1-99999999999999999999",
        "A:tag",
        "A:1:tag",
        "A:tag:tag",
        "A::1",
        "A:1x",
        "A:a-b:1",
        "x:1",
        "aaaa:1",
        "A0:1",
        "A:é:1",
        "Aé:1",
        "A:abcdefghijklmnopqrstuvwxyz0123456:1",
    ] {
        let text = bad.replace('A', A);
        assert!(text.parse::<GtidSet>().is_err(), "{text}");
    }
}

#[test]
fn sets_answer_questions() {
    // (a, b, a contains b, a + b, a - b)
    for (a, b, contains, union, subtract) in [
        ("", "", true, "", ""),
        ("A:1-5", "", true, "A:1-5", "A:1-5"),
        ("", "A:1", false, "A:1", ""),
        ("A:1-5", "A:2-3", true, "A:1-5", "A:1:4-5"),
        ("A:1-5", "A:5-6", false, "A:1-6", "A:1-4"),
        ("A:1-5", "B:1", false, "A:1-5,B:1", "A:1-5"),
        ("A:1-2:4-5", "A:2-4", false, "A:1-5", "A:1:5"),
        ("A:1-9", "A:1-9", true, "A:1-9", ""),
        ("A:1-9,B:1", "A:1-9", true, "A:1-9,B:1", "B:1"),
        ("A:1-9", "A:lane:1", false, "A:1-9:lane:1", "A:1-9"),
        ("A:lane:1-9", "A:lane:3", true, "A:lane:1-9", "A:lane:1-2:4-9"),
    ] {
        let (a, b) = (set(a), set(b));
        assert_eq!(a.contains(&b), contains, "{a} / {b}");
        assert_eq!(a.union(&b), set(union), "{a} / {b}");
        assert_eq!(a.subtract(&b), set(subtract), "{a} / {b}");
    }
    assert_eq!(set("A:1-5:lane:7,B:2").count(), 7);
}

#[test]
fn positions_answer_questions() {
    for (a, b, contains, union, subtract) in [
        ("", "", true, "", ""),
        ("0-1-5", "", true, "0-1-5", "0-1-5"),
        ("0-1-5", "0-1-4", true, "0-1-5", "0-1-5"),
        ("0-1-5", "0-1-5", true, "0-1-5", ""),
        ("0-1-5", "0-2-5", false, "0-1-5", "0-1-5"),
        ("0-1-5", "0-2-4", true, "0-1-5", "0-1-5"),
        ("0-1-5", "0-1-6", false, "0-1-6", ""),
        ("0-1-5,1-1-9", "0-1-5", true, "0-1-5,1-1-9", "1-1-9"),
        ("0-1-5", "1-1-1", false, "0-1-5,1-1-1", "0-1-5"),
    ] {
        let (a, b) = (position(a), position(b));
        assert_eq!(a.contains(&b), contains, "{a} / {b}");
        assert_eq!(a.union(&b), position(union), "{a} / {b}");
        assert_eq!(a.subtract(&b), position(subtract), "{a} / {b}");
    }
    assert_eq!(position("0-1-5, 0-2-7\n,3-1-1").to_string(), "0-2-7,3-1-1");
    for bad in ["0", "0-1", "0-1-2-3", "a-1-1", "0--1", "0-1-", "0-1-99999999999999999999", "-1-1-1", "0-+1-1"] {
        assert!(bad.parse::<GtidPosition>().is_err(), "{bad}");
    }
    assert!(!Gtids::MySql(set("")).contains(&Gtids::MariaDb(position(""))));
}

/// The model: every transaction by itself.
type Model = BTreeSet<(u8, u8, u64)>;

fn build(ranges: &[(u8, u8, u64, u64)]) -> (GtidSet, Model) {
    let mut text = String::new();
    let mut model = Model::new();
    for (source, tag, first, length) in ranges {
        let uuid = if *source == 0 { A } else { B };
        let tag_text = if *tag == 0 { String::new() } else { format!("t{tag}:") };
        text += &format!("{uuid}:{tag_text}{first}-{},\n", first + length);
        model.extend((*first..=first + length).map(|n| (*source, *tag, n)));
    }
    (text.parse().unwrap(), model)
}

fn ranges() -> impl Strategy<Value = Vec<(u8, u8, u64, u64)>> {
    proptest::collection::vec((0..2_u8, 0..2_u8, 1..40_u64, 0..8_u64), 0..12)
}

proptest! {
    #[test]
    fn sets_agree_with_the_model(a in ranges(), b in ranges()) {
        let ((a, model_a), (b, model_b)) = (build(&a), build(&b));
        prop_assert_eq!(a.count(), model_a.len() as u64);
        prop_assert_eq!(a.contains(&b), model_a.is_superset(&model_b));
        prop_assert_eq!(a.union(&b).count(), model_a.union(&model_b).count() as u64);
        prop_assert_eq!(a.subtract(&b).count(), model_a.difference(&model_b).count() as u64);
        prop_assert!(a.union(&b).contains(&a) && a.union(&b).contains(&b));
        prop_assert_eq!(a.subtract(&b).union(&b), a.union(&b));
        prop_assert_eq!(a.subtract(&b).is_empty(), b.contains(&a));
        prop_assert_eq!(a.to_string().parse::<GtidSet>().unwrap(), a);
    }

    #[test]
    fn no_text_panics(text in "[0-9a-f:,\\-\n Ax]{0,80}") {
        let text = text.replace('A', A);
        if let Ok(set) = text.parse::<GtidSet>() {
            prop_assert_eq!(set.to_string().parse::<GtidSet>().unwrap(), set);
        }
        let _ = text.parse::<GtidPosition>();
    }
}

#[test]
fn one_transaction() {
    let set = GtidSet::one("e1812baa-e5d9-11f1-a724-02fc00000001".parse().unwrap(), 7);
    assert_eq!(set, "e1812baa-e5d9-11f1-a724-02fc00000001:7".parse().unwrap());
}
