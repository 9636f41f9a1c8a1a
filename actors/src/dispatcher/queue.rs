//! The order in which executions of one runtime run. Pure: no clock, no actors.
//!
//! Priority first (9 before 0), then fair turns among clients, then age. A definition at its
//! `max_concurrency` is passed over without losing its place. The number of waiting entries is bounded.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::execution::Client;

/// The names of definitions, as the queue tells them apart.
pub type DefinitionKey = (crate::definition::Kind, String);

/// Something that waits for its turn.
#[derive(Debug)]
pub struct Entry<T> {
    /// 0 to 9; higher goes first.
    pub priority: u8,
    /// Whose turn it takes.
    pub client: Client,
    /// What runs.
    pub definition: DefinitionKey,
    /// How many of it may run at the same time.
    pub max_concurrency: Option<usize>,
    /// Its place by age, given by [`Queue::push`].
    age: u64,
    /// What is to run.
    pub item: T,
}

impl<T> Entry<T> {
    /// An entry without a place yet.
    pub fn new(
        priority: u8,
        client: Client,
        definition: DefinitionKey,
        max_concurrency: Option<usize>,
        item: T,
    ) -> Self {
        Self { priority, client, definition, max_concurrency, age: 0, item }
    }
}

/// The entries of one priority: each client's by age, and whose turn is next.
#[derive(Debug)]
struct Lane<T> {
    clients: HashMap<Client, BTreeMap<u64, Entry<T>>>,
    turns: VecDeque<Client>,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self { clients: HashMap::new(), turns: VecDeque::new() }
    }
}

/// The entries of one definition that wait until one of it ends: by priority and age, and each client's by age.
#[derive(Debug)]
struct Parking<T> {
    entries: BTreeMap<(Reverse<u8>, u64), Entry<T>>,
    ages: HashMap<(u8, Client), BTreeSet<u64>>,
}

impl<T> Default for Parking<T> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), ages: HashMap::new() }
    }
}

/// What waits for one runtime, and how many of each definition it has handed out.
#[derive(Debug)]
pub struct Queue<T> {
    bound: usize,
    waiting: usize,
    next_age: u64,
    lanes: BTreeMap<Reverse<u8>, Lane<T>>,
    parked: HashMap<DefinitionKey, Parking<T>>,
    running: HashMap<DefinitionKey, usize>,
}

impl<T> Queue<T> {
    /// An empty queue in which this many entries may wait.
    pub fn new(bound: usize) -> Self {
        Self {
            bound,
            waiting: 0,
            next_age: 0,
            lanes: BTreeMap::new(),
            parked: HashMap::new(),
            running: HashMap::new(),
        }
    }

    /// How many entries wait.
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Changes how many entries may wait; those that wait already stay.
    pub fn set_bound(&mut self, bound: usize) {
        self.bound = bound;
    }

    /// Takes a new entry in.
    ///
    /// # Errors
    /// Gives the entry back when the queue is full.
    pub fn push(&mut self, mut entry: Entry<T>) -> Result<(), Entry<T>> {
        if self.waiting >= self.bound {
            return Err(entry);
        }
        entry.age = self.next_age;
        self.next_age += 1;
        self.insert(entry);
        Ok(())
    }

    /// Takes in an entry that was accepted in an earlier life; the bound does not apply to it.
    pub fn restore(&mut self, mut entry: Entry<T>) {
        entry.age = self.next_age;
        self.next_age += 1;
        self.insert(entry);
    }

    /// Puts back an entry that was handed out and did not run, at the place that its age gives it; the bound
    /// does not apply, since it was accepted.
    pub fn put_back(&mut self, entry: Entry<T>) {
        self.release(&entry.definition.clone());
        self.insert(entry);
    }

    /// As [`Queue::put_back`], for an entry that was released when it ended.
    pub fn take_back(&mut self, entry: Entry<T>) {
        self.insert(entry);
    }

    /// Hands out the next entry that may run; it counts as running until [`Queue::release`].
    pub fn pop(&mut self) -> Option<Entry<T>> {
        loop {
            let mut lane = self.lanes.first_entry()?;
            let entry = lane.get_mut().take();
            if lane.get().turns.is_empty() {
                lane.remove();
            }
            let Some(entry) = entry else { continue };
            let running = self.running.get(&entry.definition).copied().unwrap_or(0);
            if entry.max_concurrency.is_some_and(|max| running >= max) {
                self.parked.entry(entry.definition.clone()).or_default().insert(entry);
                continue;
            }
            // Its client's older one of the same definition may wait beside the lane.
            let entry = match self.parked.get_mut(&entry.definition) {
                Some(parking) => parking.exchange(entry),
                None => entry,
            };
            *self.running.entry(entry.definition.clone()).or_default() += 1;
            self.waiting -= 1;
            return Some(entry);
        }
    }

    /// One execution of this definition ended: those that wait for it may have their turns.
    pub fn release(&mut self, definition: &DefinitionKey) {
        if let Some(running) = self.running.get_mut(definition) {
            *running -= 1;
            if *running == 0 {
                self.running.remove(definition);
            }
        }
        self.unpark(definition);
    }

    fn unpark(&mut self, definition: &DefinitionKey) {
        let Some(parking) = self.parked.get_mut(definition) else { return };
        // Whose turn it is decides which of them runs; those that come too late wait here again.
        let firsts = parking.take_firsts();
        if parking.entries.is_empty() {
            self.parked.remove(definition);
        }
        for entry in firsts {
            self.waiting -= 1;
            self.insert(entry);
        }
    }

    /// Takes one entry out of those that wait.
    pub fn remove(&mut self, wanted: impl Fn(&T) -> bool) -> Option<Entry<T>> {
        let entry = self.remove_from_lanes(&wanted).or_else(|| self.remove_parked(&wanted))?;
        self.waiting -= 1;
        // It may have had the place for which others of its definition wait.
        self.unpark(&entry.definition);
        Some(entry)
    }

    fn remove_from_lanes(&mut self, wanted: &impl Fn(&T) -> bool) -> Option<Entry<T>> {
        let (priority, client, age) = self.lanes.iter().find_map(|(priority, lane)| {
            let mut entries = lane.clients.values().flatten();
            let (age, entry) = entries.find(|(_, entry)| wanted(&entry.item))?;
            Some((*priority, entry.client, *age))
        })?;
        let lane = self.lanes.get_mut(&priority)?;
        let entries = lane.clients.get_mut(&client)?;
        let entry = entries.remove(&age)?;
        if entries.is_empty() {
            lane.clients.remove(&client);
            lane.turns.retain(|turn| *turn != client);
        }
        if lane.turns.is_empty() {
            self.lanes.remove(&priority);
        }
        Some(entry)
    }

    fn remove_parked(&mut self, wanted: &impl Fn(&T) -> bool) -> Option<Entry<T>> {
        let (definition, priority, age) = self.parked.iter().find_map(|(definition, parking)| {
            let ((priority, age), _) = parking.entries.iter().find(|(_, entry)| wanted(&entry.item))?;
            Some((definition.clone(), *priority, *age))
        })?;
        let parking = self.parked.get_mut(&definition)?;
        let entry = parking.take(priority, age)?;
        if parking.entries.is_empty() {
            self.parked.remove(&definition);
        }
        Some(entry)
    }

    /// Takes out everything that waits, oldest first.
    pub fn drain(&mut self) -> Vec<Entry<T>> {
        let lanes = std::mem::take(&mut self.lanes).into_values();
        let in_lanes = lanes.flat_map(|lane| lane.clients.into_values().flat_map(BTreeMap::into_values));
        let parked =
            std::mem::take(&mut self.parked).into_values().flat_map(|parking| parking.entries.into_values());
        let mut all: Vec<Entry<T>> = in_lanes.chain(parked).collect();
        all.sort_by_key(|entry| entry.age);
        self.waiting = 0;
        all
    }

    fn insert(&mut self, entry: Entry<T>) {
        self.waiting += 1;
        let lane = self.lanes.entry(Reverse(entry.priority)).or_default();
        let client = entry.client;
        let entries = lane.clients.entry(client).or_default();
        if entries.is_empty() {
            lane.turns.push_back(client);
        }
        entries.insert(entry.age, entry);
    }
}

impl<T> Parking<T> {
    fn insert(&mut self, entry: Entry<T>) {
        self.ages.entry((entry.priority, entry.client)).or_default().insert(entry.age);
        self.entries.insert((Reverse(entry.priority), entry.age), entry);
    }

    /// The oldest of each client in each priority.
    fn take_firsts(&mut self) -> Vec<Entry<T>> {
        let firsts = self.ages.iter().filter_map(|((priority, _), ages)| Some((*priority, *ages.first()?)));
        let firsts: Vec<(u8, u64)> = firsts.collect();
        let mut entries: Vec<_> =
            firsts.into_iter().filter_map(|(priority, age)| self.take(Reverse(priority), age)).collect();
        entries.sort_by_key(|entry| entry.age);
        entries
    }

    fn take(&mut self, priority: Reverse<u8>, age: u64) -> Option<Entry<T>> {
        let entry = self.entries.remove(&(priority, age))?;
        let key = (entry.priority, entry.client);
        if let Some(ages) = self.ages.get_mut(&key) {
            ages.remove(&age);
            if ages.is_empty() {
                self.ages.remove(&key);
            }
        }
        Some(entry)
    }

    /// The client's oldest entry of that priority: this one, or one that waits here, whose place it then takes.
    fn exchange(&mut self, entry: Entry<T>) -> Entry<T> {
        let oldest = self.ages.get(&(entry.priority, entry.client)).and_then(|ages| ages.first().copied());
        match oldest.filter(|age| *age < entry.age).and_then(|age| self.take(Reverse(entry.priority), age)) {
            Some(older) => {
                self.insert(entry);
                older
            }
            None => entry,
        }
    }
}

impl<T> Lane<T> {
    /// The oldest entry of the client whose turn it is, who then goes to the end of the row.
    fn take(&mut self) -> Option<Entry<T>> {
        let client = self.turns.pop_front()?;
        let entries = self.clients.get_mut(&client)?;
        let (_, entry) = entries.pop_first()?;
        if entries.is_empty() {
            self.clients.remove(&client);
        } else {
            self.turns.push_back(client);
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::definition::Kind;

    fn client(number: u8) -> Client {
        Client::Address(IpAddr::V4(Ipv4Addr::new(127, 0, 0, number)))
    }

    fn entry(item: u32, priority: u8, of: u8, definition: &str, max: Option<usize>) -> Entry<u32> {
        Entry::new(priority, client(of), (Kind::Tool, definition.into()), max, item)
    }

    fn pop_all(queue: &mut Queue<u32>) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop().map(|entry| entry.item)).collect()
    }

    #[test]
    fn priority_goes_before_turns_and_turns_before_age() {
        let mut queue = Queue::new(10);
        for (item, priority, of) in [(1, 5, 1), (2, 5, 1), (3, 5, 1), (4, 5, 2), (5, 9, 3), (6, 0, 4)] {
            queue.push(entry(item, priority, of, "t", None)).expect("room");
        }
        assert_eq!(pop_all(&mut queue), [5, 1, 4, 2, 3, 6]);
    }

    #[test]
    fn a_full_queue_gives_the_entry_back() {
        let mut queue = Queue::new(1);
        queue.push(entry(1, 5, 1, "t", None)).expect("room");
        assert_eq!(queue.push(entry(2, 5, 1, "t", None)).expect_err("full").item, 2);
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn a_definition_at_its_limit_is_passed_over_and_keeps_its_place() {
        let mut queue = Queue::new(10);
        for (item, definition, max) in
            [(1, "one", Some(1)), (2, "one", Some(1)), (3, "two", None), (4, "one", Some(1))]
        {
            queue.push(entry(item, 5, 1, definition, max)).expect("room");
        }
        assert_eq!(pop_all(&mut queue), [1, 3]);
        assert_eq!(queue.len(), 2);
        queue.push(entry(5, 5, 1, "two", None)).expect("room");
        queue.release(&(Kind::Tool, "one".into()));
        assert_eq!(pop_all(&mut queue), [2, 5]);
    }

    #[test]
    fn what_is_put_back_is_the_oldest_again() {
        let mut queue = Queue::new(2);
        queue.push(entry(1, 5, 1, "t", Some(1))).expect("room");
        queue.push(entry(2, 5, 1, "t", Some(1))).expect("room");
        let first = queue.pop().expect("one");
        queue.put_back(first);
        assert_eq!(queue.pop().expect("one").item, 1);
        assert!(queue.pop().is_none());
        assert_eq!(queue.drain().len(), 1);
        assert!(queue.is_empty());
    }

    /// A small generator, so that a failing round can be run again by its seed.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % sides
        }
    }

    /// What the rules say without any cleverness: all waiting entries in a list.
    #[derive(Default)]
    struct Model {
        waiting: Vec<(u32, u8, u8, u8)>,
        running: Vec<(u32, u8)>,
    }

    /// Definition 0 has no limit, 1 has a limit of 1, 2 of 2.
    fn limit(definition: u8) -> Option<usize> {
        (definition > 0).then_some(usize::from(definition))
    }

    impl Model {
        fn may_run(&self, definition: u8) -> bool {
            let running = self.running.iter().filter(|(_, of)| *of == definition).count();
            limit(definition).is_none_or(|max| running < max)
        }

        fn check_pop(&mut self, popped: Option<u32>, seed: u64) {
            let eligible: Vec<_> =
                self.waiting.iter().filter(|entry| self.may_run(entry.3)).copied().collect();
            let Some(item) = popped else {
                assert!(eligible.is_empty(), "seed {seed}: nothing was handed out of {eligible:?}");
                return;
            };
            let chosen = *eligible.iter().find(|entry| entry.0 == item).expect("an eligible entry");
            let highest = eligible.iter().map(|entry| entry.1).max().expect("one");
            assert_eq!(chosen.1, highest, "seed {seed}: a lower priority went first");
            let same = |entry: &&(u32, u8, u8, u8)| entry.1 == chosen.1 && entry.2 == chosen.2;
            assert_eq!(
                eligible.iter().filter(same).map(|entry| entry.0).min(),
                Some(item),
                "seed {seed}: not the oldest"
            );
            self.waiting.retain(|entry| entry.0 != item);
            self.running.push((item, chosen.3));
        }
    }

    #[test]
    fn a_hundred_thousand_random_sequences_keep_the_rules_and_lose_nothing() {
        for seed in 0..100_000 {
            let (mut dice, mut model, mut queue) = (Dice(seed), Model::default(), Queue::new(1_000));
            let mut seen = BTreeSet::new();
            for item in 0..40 {
                match dice.roll(5) {
                    4 if !model.waiting.is_empty() => {
                        let gone = dice.roll(model.waiting.len() as u64) as usize;
                        let (item, ..) = model.waiting.swap_remove(gone);
                        let removed = queue.remove(|waiting| *waiting == item).expect("it waits");
                        assert_eq!(removed.item, item, "seed {seed}");
                        assert!(queue.remove(|waiting| *waiting == item).is_none(), "seed {seed}");
                        seen.remove(&item);
                    }
                    0 | 1 => {
                        let (priority, of) = (dice.roll(3) as u8, dice.roll(3) as u8);
                        let definition = dice.roll(3) as u8;
                        let name = definition.to_string();
                        queue.push(entry(item, priority, of, &name, limit(definition))).expect("room");
                        model.waiting.push((item, priority, of, definition));
                        seen.insert(item);
                    }
                    2 => model.check_pop(queue.pop().map(|entry| entry.item), seed),
                    _ if !model.running.is_empty() => {
                        let ended = dice.roll(model.running.len() as u64) as usize;
                        let (item, definition) = model.running.swap_remove(ended);
                        seen.remove(&item);
                        queue.release(&(Kind::Tool, definition.to_string()));
                    }
                    _ => {}
                }
                assert_eq!(queue.len(), model.waiting.len(), "seed {seed}");
            }
            let left: BTreeSet<u32> = queue.drain().into_iter().map(|entry| entry.item).collect();
            let running: BTreeSet<u32> = model.running.iter().map(|(item, _)| *item).collect();
            assert_eq!(
                left.union(&running).copied().collect::<BTreeSet<_>>(),
                seen,
                "seed {seed}: something was lost"
            );
        }
    }

    #[test]
    fn a_client_with_much_work_does_not_hold_up_the_others() {
        let mut queue = Queue::new(1_000);
        for item in 0..100 {
            queue.push(entry(item, 5, 1, "t", None)).expect("room");
        }
        for item in 100..103 {
            queue.push(entry(item, 5, 2, "t", None)).expect("room");
        }
        let first: Vec<u32> = pop_all(&mut queue).into_iter().take(6).collect();
        assert_eq!(first, [0, 100, 1, 101, 2, 102]);
    }
}
