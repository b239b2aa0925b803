use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Thing {
    place: Option<Place>,
    made: Instant,
    name: u32,
}

impl Shelved for Thing {
    fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }
    fn is_usable(&mut self) -> bool {
        true
    }
    fn made(&self) -> Instant {
        self.made
    }
}

/// Idle so many times.
struct Idle(AtomicUsize);

impl Holder for Idle {
    fn recall(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn limits(places_max: usize) -> ShelfLimits {
    ShelfLimits { places_max, places_min: 0, idle_max: SECOND, lifetime_max: None, waiters_max: 2 }
}

fn thing(place: Place, name: u32) -> Thing {
    Thing { place: Some(place), made: Instant::now(), name }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_millis(20)
}

async fn new(shelf: &Shelf<u8, Thing>, key: u8, name: u32) -> Thing {
    match shelf.borrow(&key, false, soon()).await {
        Ok(Borrowed::Place(place)) => thing(place, name),
        _ => panic!("a place was expected"),
    }
}

async fn used(shelf: &Shelf<u8, Thing>, key: u8) -> Option<u32> {
    match shelf.borrow(&key, false, soon()).await {
        Ok(Borrowed::Used(thing)) => Some(thing.name),
        _ => None,
    }
}

#[tokio::test]
async fn what_was_given_back_last_is_lent_first() {
    let shelf = Shelf::new(limits(2));
    let (one, two) = (new(&shelf, 1, 1).await, new(&shelf, 1, 2).await);
    shelf.give_back(1, one);
    shelf.give_back(1, two);
    assert_eq!(shelf.counts(), (2, 0));
    assert_eq!(used(&shelf, 1).await, Some(2));
    assert_eq!(used(&shelf, 1).await, Some(1));
    assert!(shelf.is_empty(), "what is dropped leaves its place");
}

#[tokio::test]
async fn whoever_waits_gets_it_in_turn_and_no_more_wait_than_may() {
    let shelf = Shelf::new(limits(1));
    let thing = new(&shelf, 1, 7).await;
    let deadline = Instant::now() + SECOND;
    let order = RefCell::new(Vec::new());
    let wait = |who: u8| {
        let (shelf, order) = (&shelf, &order);
        async move {
            let borrowed = shelf.borrow(&1, false, deadline).await;
            if let Ok(Borrowed::Used(thing)) = borrowed {
                order.borrow_mut().push(who);
                shelf.give_back(1, thing);
            }
        }
    };
    let giving = async {
        tokio::task::yield_now().await;
        let full = shelf.borrow(&1, false, deadline).await;
        assert!(matches!(full, Err(NotBorrowed::Full)));
        assert!(thing.place.as_ref().is_some_and(Place::is_waited_for));
        shelf.give_back(1, thing);
    };
    tokio::join!(wait(1), wait(2), giving);
    assert_eq!(*order.borrow(), [1, 2]);
    assert_eq!(shelf.counts(), (1, 0));
}

#[tokio::test]
async fn nobody_waits_longer_than_until_his_deadline_nor_stays_in_line() {
    let shelf = Shelf::new(limits(1));
    let thing = new(&shelf, 1, 7).await;
    assert!(matches!(shelf.borrow(&1, false, soon()).await, Err(NotBorrowed::Late)));
    assert!(!thing.place.as_ref().is_some_and(Place::is_waited_for));
    shelf.give_back(1, thing);
    assert_eq!(used(&shelf, 1).await, Some(7));
}

#[tokio::test]
async fn another_accounts_place_is_taken_when_there_is_no_other() {
    let shelf = Shelf::new(limits(1));
    let thing = new(&shelf, 1, 1).await;
    shelf.give_back(1, thing);
    let other = new(&shelf, 2, 2).await;
    assert_eq!(shelf.counts(), (0, 1));
    let waits = async { matches!(shelf.borrow(&1, false, soon()).await, Ok(Borrowed::Place(_))) };
    let gives = async {
        tokio::task::yield_now().await;
        shelf.give_back(2, other);
    };
    let (placed, ()) = tokio::join!(waits, gives);
    assert!(placed, "the place of what nobody of this account can use");
}

#[tokio::test]
async fn only_idle_holders_are_recalled_each_once_around() {
    let shelf = Shelf::new(limits(3));
    let things = [new(&shelf, 1, 1).await, new(&shelf, 1, 2).await, new(&shelf, 1, 3).await];
    let holders = [0, 1, 1].map(|times| Arc::new(Idle(AtomicUsize::new(times))));
    for (thing, holder) in things.iter().zip(&holders) {
        thing.place().expect("it has one").hold(Some(holder.clone()));
    }
    let left = || holders.each_ref().map(|holder| holder.0.load(Ordering::Relaxed));
    let _ = shelf.borrow(&1, false, soon()).await;
    assert_eq!(left(), [0, 0, 1]);
    let _ = shelf.borrow(&1, false, soon()).await;
    assert_eq!(left(), [0, 0, 0]);
}

#[tokio::test]
async fn what_is_unused_or_old_is_closed_but_for_the_least_number() {
    let limits = ShelfLimits { places_min: 1, idle_max: Duration::ZERO, ..limits(3) };
    let shelf = Shelf::new(limits);
    let things = [new(&shelf, 1, 1).await, new(&shelf, 1, 2).await, new(&shelf, 1, 3).await];
    for thing in things {
        shelf.give_back(1, thing);
    }
    shelf.sweep(false);
    assert_eq!(shelf.counts(), (1, 0));
    shelf.limit(ShelfLimits { lifetime_max: Some(Duration::ZERO), ..limits });
    assert_eq!(used(&shelf, 1).await, None, "too old");
    let thing = new(&shelf, 1, 4).await;
    shelf.limit(limits);
    shelf.give_back(1, thing);
    shelf.sweep(true);
    assert!(shelf.is_empty());
}

#[tokio::test]
async fn a_login_is_remembered_and_a_fresh_one_gets_a_place_only() {
    let shelf = Shelf::new(limits(1));
    assert!(!shelf.is_proven(&1));
    let thing = new(&shelf, 1, 1).await;
    shelf.proven(&1);
    shelf.give_back(1, thing);
    assert!(shelf.is_proven(&1) && !shelf.is_proven(&2));
    assert!(matches!(shelf.borrow(&1, true, soon()).await, Ok(Borrowed::Place(_))));
}
