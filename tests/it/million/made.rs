//! The data: definitions of 300 bytes to 4 KB, each made by dice from its number, so that any of them can be had again and
//! nothing of them needs to be kept.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::cancels::Dice;

/// How many definitions bear the same rare tag.
pub const RARE: u64 = 50;

/// Spreads numbers that follow each other over all seeds.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// The bytes of a definition: at least, and at most before the last of its examples, of up to 200 bytes.
const LEAST: f64 = 300.0;
const MOST: f64 = 3_880.0;

/// How many words there are; the n-th comes up n times less often than the first.
const WORDS: usize = 4_000;

/// Each is borne by a quarter of all definitions.
const COMMON: [&str; 4] = ["stable", "internal", "batch", "audited"];

const RUNTIMES: [&str; 4] = ["python", "binary", "script", "wasm"];

/// So many definitions, and the words that they are made of.
pub struct Made {
    pub count: u64,
    /// The most frequent first.
    pub words: Vec<String>,
    /// Of each word: up to where a roll means it or one before it.
    sums: Vec<u64>,
}

impl Made {
    pub fn new(count: u64) -> Self {
        assert!(count.is_multiple_of(RARE) && count > 0, "{count} definitions do not share rare tags evenly");
        let sums = (0..WORDS as u64).scan(0, |sum, rank| {
            *sum += 100_000_000 / (rank + 3);
            Some(*sum)
        });
        Self { count, words: words(), sums: sums.collect() }
    }

    pub fn id(number: u64) -> String {
        format!("tool-{number:07}")
    }

    /// How many rare tags there are.
    pub fn rare_tags(&self) -> u64 {
        self.count / RARE
    }

    /// A tag that 50 definitions bear, far from each other.
    pub fn rare_tag(number: u64) -> String {
        format!("team-{number:05}")
    }

    /// The definition of this number.
    pub fn definition(&self, number: u64) -> Value {
        let spread = (number + 1).wrapping_mul(SPREAD);
        // Folded, since dice of numbers that are evenly apart, as those of a tag are, would roll in step.
        let dice = &mut Dice(spread ^ (spread >> 29));
        // Log-uniform: as many from 300 to 600 bytes as from 600 to 1,200.
        let part = dice.roll(1 << 20) as f64 / f64::from(1 << 20);
        let bytes = (LEAST * (MOST / LEAST).powf(part)) as usize;
        let mut tags = vec![Self::rare_tag(number % self.rare_tags()), format!("area-{}", dice.roll(100))];
        tags.extend(COMMON.iter().filter(|_| dice.roll(4) == 0).map(|&tag| tag.to_owned()));
        let mut made = json!({
            "tool_id": Self::id(number),
            "tool_search_tags": tags,
            "tool_metadata": {
                "runtime": RUNTIMES[dice.roll(4) as usize],
                "version": format!("{}.{}.{}", dice.roll(5), dice.roll(20), dice.roll(50)),
                "type": self.words[dice.roll(20) as usize],
                "subtype": self.words[20 + dice.roll(200) as usize],
                "size": dice.roll(10_000),
            },
            "tool_description": "",
            "tool_default_params": {},
        });
        let room = bytes.saturating_sub(made.to_string().len());
        if room < 200 {
            made["tool_description"] = self.sentence(dice, room).into();
            return made;
        }
        made["tool_description"] = self.sentence(dice, room * 2 / 5).into();
        self.fill(dice, &mut made, bytes);
        made
    }

    /// Adds what is nested until the definition has so many bytes.
    fn fill(&self, dice: &mut Dice, made: &mut Value, bytes: usize) {
        made["tool_default_params"] = json!({ "mode": self.word(dice), "width": dice.roll(64) });
        if bytes > 1_000 {
            made["tool_metadata"]["owner"] = json!({
                "name": self.word(dice),
                "contact": { "channel": self.word(dice), "hours": [dice.roll(12), 12 + dice.roll(12)] },
            });
            made["tool_metadata"]["input_schema"] = json!({
                "type": "object",
                "properties": { "mode": { "type": "string" }, "width": { "type": "integer", "minimum": 0 } },
            });
        }
        let (mut length, mut examples) = (made.to_string().len() + r#""examples":[],"#.len(), Vec::new());
        while length < bytes {
            let example = json!({
                "input": { "width": dice.roll(64), "values": [dice.roll(1_000), dice.roll(1_000), dice.roll(1_000)] },
                "weight": dice.roll(1_000) as f64 / 1_000.0,
                "note": self.sentence(dice, 40),
            });
            length += example.to_string().len() + 1;
            examples.push(example);
        }
        made["tool_metadata"]["examples"] = examples.into();
    }

    fn word(&self, dice: &mut Dice) -> &str {
        let roll = dice.roll(self.sums[WORDS - 1]);
        &self.words[self.sums.partition_point(|sum| *sum <= roll)]
    }

    /// Words of at least that many bytes.
    fn sentence(&self, dice: &mut Dice, bytes: usize) -> String {
        let mut sentence = self.word(dice).to_owned();
        while sentence.len() < bytes {
            sentence.push(' ');
            sentence += self.word(dice);
        }
        sentence
    }
}

/// Words made up from syllables.
fn words() -> Vec<String> {
    const SOUNDS: [&str; 16] =
        ["b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "st", "tr"];
    const VOWELS: [&str; 6] = ["a", "e", "i", "o", "u", "ei"];
    const ENDS: [&str; 6] = ["", "", "", "n", "r", "l"];
    let (dice, mut known, mut words) = (&mut Dice(SPREAD), HashSet::new(), Vec::new());
    while words.len() < WORDS {
        let mut word = String::new();
        for _ in 0..2 + dice.roll(3) {
            word += SOUNDS[dice.roll(16) as usize];
            word += VOWELS[dice.roll(6) as usize];
            word += ENDS[dice.roll(6) as usize];
        }
        if known.insert(word.clone()) {
            words.push(word);
        }
    }
    words
}

#[test]
fn what_is_made_is_as_large_as_told_and_fifty_bear_a_rare_tag() {
    let made = Made::new(2_000);
    let mut bearers = vec![0; made.rare_tags() as usize];
    let (mut common, mut bytes) = (0, 0);
    for number in 0..made.count {
        let definition = made.definition(number);
        let length = definition.to_string().len();
        assert!((300..=4_096).contains(&length), "{length} bytes: {definition}");
        bytes += length;
        let tags: Vec<&str> = definition["tool_search_tags"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tag| tag.as_str().unwrap())
            .collect();
        let rare = tags[0].strip_prefix("team-").unwrap();
        bearers[rare.parse::<usize>().unwrap()] += 1;
        common += usize::from(tags.contains(&"stable"));
    }
    assert!(bearers.iter().all(|count| *count == RARE), "{bearers:?}");
    assert!((400..600).contains(&common), "{common} of 2,000 are stable");
    assert!((1_000..2_000).contains(&(bytes / 2_000)), "{bytes} bytes");
    assert_eq!(made.definition(7), Made::new(2_000).definition(7));
}
