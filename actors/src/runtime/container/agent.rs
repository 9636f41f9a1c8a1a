//! What is said between this service and the shell in a warm container. Pure.
//!
//! The shell reads its script from its standard input. First comes [`prelude`], with which it says that it is ready;
//! then one [`request`] for each execution, which it parses whole before it runs any of it. Once the program has
//! ended, all that it started is killed, and only then the shell prints a mark on standard output and error, so that
//! nothing of the run can come after it. The mark is a word that no program can guess. Then it cleans up, and says
//! whether the container is as it was.

use super::{Bounds, Order, cpu_seconds};

/// Folders of file systems that an engine makes writable.
const SHARED_MEMORY: [&str; 2] = ["/dev/shm", "/dev/mqueue"];

/// Processes besides those of the run: the shell, and the one that writes the input.
pub const OWN_PROCESSES: u64 = 2;

/// Variables that a shell has for itself and does not let go to a program as they are.
const SHELL_VARIABLES: [&str; 7] = ["_", "BASHOPTS", "BASH_VERSINFO", "EUID", "PPID", "SHELLOPTS", "UID"];

/// What the functions are, each named by a letter since they are parsed at every start:
///
/// - `l` lists in `r` what is in the writable folders;
/// - `o` reads in `m` how often the kernel ended a process for its memory (cgroup 2, else 1);
/// - `i` succeeds when no System V object is left, which would outlive its process;
/// - `e MARK STATUS` ends a run: kills all but the shell itself, process 1, and tells;
/// - `c MARK` cleans up: waits until the killed are gone, since the dead count as processes until the shell has waited
///   for them, which it does while it waits for a child; removes what was written; tells whether all is as it was.
const FUNCTIONS: &str = r#"l() { r=; for x in $d; do for f in "$x"/* "$x"/.[!.]* "$x"/..?*; do
if [ -e "$f" ] || [ -L "$f" ]; then r="$r $f"; fi; done; done; }
o() { m=0; for x in /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control; do
if [ -r "$x" ]; then while read -r k v; do if [ "$k" = oom_kill ]; then m=$v; fi; done < "$x"; fi; done; }
i() { for x in shm sem msg; do if [ -r /proc/sysvipc/$x ]; then
{ read -r k; if read -r k; then return 1; fi; } < /proc/sysvipc/$x; fi; done; }
e() { kill -9 -1 2>/dev/null; o; printf '%s %s %s\n' "$1" "$2" "$m"; printf '%s\n' "$1" >&2; }
c() { while kill -9 -1; do (:) & wait; done; l
if [ "$r" != "$b" ]; then for x in $d; do rm -rf "$x"/* "$x"/.[!.]* "$x"/..?*; done; l; fi
if [ "$r" = "$b" ] && i; then printf '%s clean\n' "$1"; else printf '%s dirty\n' "$1"; fi; } 2>/dev/null
l; b=$r
"#;

/// What a shell is given first. `folders` are those that a program can write.
pub fn prelude(mark: &str, folders: impl Iterator<Item = String>) -> String {
    let folders: Vec<_> = folders.chain(SHARED_MEMORY.map(str::to_owned)).collect();
    let folders = quote(&folders.join(" "));
    // To kill "all" is to kill all of the machine where an engine was told to share its processes.
    // A program gets standard output and error opened anew, since it may change how they are open (O_NONBLOCK), for
    // all who share them; where nobody may open them it gets those of the shell.
    format!(
        "if [ $$ != 1 ]; then printf '%s foreign\\n' {mark}; exit; fi\nd={folders}\n{FUNCTIONS}\
         if (: >/proc/self/fd/1 2>/proc/self/fd/2) 2>/dev/null; then a=anew; else a=shared; fi\n\
         printf '%s %s\\n' {mark} $a\n"
    )
}

/// What a shell answers to the prelude.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A program's output can be opened anew.
    Anew,
    /// It shares that of the shell.
    Shared,
    /// The shell is not the first process: its container has other processes than its own.
    Foreign,
}

impl Answer {
    /// Reads the line after the mark.
    pub fn parse(line: &str) -> Option<Self> {
        match line {
            "anew" => Some(Self::Anew),
            "shared" => Some(Self::Shared),
            "foreign" => Some(Self::Foreign),
            _ => None,
        }
    }
}

/// One execution, as a shell's command.
pub fn request(order: &Order, argv: &[String], bounds: &Bounds, mark: &str, opens_anew: bool) -> String {
    let mut run = String::new();
    if let Some(seconds) = cpu_seconds(bounds) {
        // The warning first, which must not be above the end.
        run.push_str(&format!("ulimit -St {seconds}; ulimit -Ht {}; ", seconds.saturating_add(1)));
    }
    let (exported, other): (Vec<_>, Vec<_>) = order.env.iter().partition(|(name, _)| is_exportable(name));
    for (name, value) in exported {
        run.push_str(&format!("export {name}={}; ", quote(value)));
    }
    run.push_str("exec ");
    if !other.is_empty() {
        let pairs = other.iter().map(|(name, value)| quote(&format!("{name}={value}")));
        run.push_str(&format!("env {} ", pairs.collect::<Vec<_>>().join(" ")));
    }
    run.push_str(&argv.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" "));
    run.push_str(if opens_anew { " >/proc/self/fd/1 2>/proc/self/fd/3 3>&-" } else { " 2>&3 3>&-" });
    let run = match &order.stdin {
        Some(stdin) => format!("printf %s {} | ({run})", quote(stdin)),
        // At the command itself: dash forgets it at a subshell within a group.
        None => format!("({run} </dev/null)"),
    };
    // When a signal ends a program some shells tell so on standard error, with all that was run.
    let run = format!("{{ {run}; }} 3>&2 2>/dev/null");
    let path = order.env.iter().find(|(name, _)| name == "PATH");
    let path = path.map(|(_, value)| format!("PATH={} ", quote(value))).unwrap_or_default();
    let program = argv.first().map(|word| quote(word)).unwrap_or_default();
    format!(
        "if {path}command -v {program} >/dev/null 2>&1; then {run}; e {mark} $?; else e {mark} none; fi; c {mark}\n"
    )
}

fn is_exportable(name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().all(is_word)
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && !SHELL_VARIABLES.contains(&name)
}

/// One word, whatever stands in it.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// What a shell said at the end of a run.
#[derive(Debug, PartialEq, Eq)]
pub struct End {
    /// The program's exit status; none where the image has no such program.
    pub status: Option<i64>,
    /// Whether the kernel ended something in the container for its memory.
    pub is_out_of_memory: bool,
}

impl End {
    /// Reads the line after the mark.
    pub fn parse(line: &str) -> Option<Self> {
        let (status, kills) = line.split_once(' ')?;
        let status = if status == "none" { None } else { Some(status.parse().ok()?) };
        Some(Self { status, is_out_of_memory: kills.parse::<u64>().ok()? > 0 })
    }
}

/// Standard output, in which a mark and the rest of its line are looked for.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    /// Up to here there is no mark.
    searched: usize,
}

impl Output {
    /// Takes what was printed.
    pub fn push(&mut self, printed: &[u8]) {
        self.bytes.extend_from_slice(printed);
    }

    /// How much was printed that is no mark for sure.
    pub fn len(&self) -> usize {
        self.searched
    }

    /// What was printed before the mark, and the line after it; what comes then stays here.
    pub fn take(&mut self, mark: &str) -> Option<(Vec<u8>, String)> {
        let mark = format!("{mark} ");
        let Some(place) = find(&self.bytes[self.searched..], mark.as_bytes()) else {
            self.searched = self.searched.max(self.bytes.len().saturating_sub(mark.len() - 1));
            return None;
        };
        self.searched += place;
        let after = self.searched + mark.len();
        let end = after + self.bytes[after..].iter().position(|byte| *byte == b'\n')?;
        let line = String::from_utf8_lossy(&self.bytes[after..end]).into_owned();
        let rest = self.bytes.split_off(end + 1);
        let mut before = std::mem::replace(&mut self.bytes, rest);
        before.truncate(self.searched);
        self.searched = 0;
        Some((before, line))
    }
}

/// Standard error, which is passed on up to the mark.
#[derive(Debug, Default)]
pub struct Errors {
    /// What may be the beginning of the mark.
    held: Vec<u8>,
}

impl Errors {
    /// Takes what was printed. What is no mark for sure, and whether the mark has come.
    pub fn push(&mut self, printed: &[u8], mark: &str) -> (Vec<u8>, bool) {
        self.held.extend_from_slice(printed);
        let mark = format!("{mark}\n");
        if let Some(place) = find(&self.held, mark.as_bytes()) {
            self.held.truncate(place);
            return (std::mem::take(&mut self.held), true);
        }
        let begins = |length: &usize| self.held.ends_with(&mark.as_bytes()[..*length]);
        let kept = (1..mark.len()).rev().find(begins).unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - kept);
        (std::mem::replace(&mut self.held, rest), false)
    }
}

fn find(bytes: &[u8], word: &[u8]) -> Option<usize> {
    bytes.windows(word.len()).position(|window| window == word)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MARK: &str = "0123456789abcdef";

    fn bounds(cpu: Option<Duration>) -> Bounds {
        Bounds {
            timeout: Duration::from_secs(1),
            output_bytes: 1,
            memory_bytes: 1,
            cpu,
            processes: 1,
            files: 1,
            disk_bytes: 1,
        }
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_request_is_one_command_whatever_stands_in_it() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let order = Order {
            command: Vec::new(),
            args: Vec::new(),
            env: vec![pair("A", "it's"), pair("a.b", "$(x)"), pair("UID", "7")],
            stdin: Some("a\n'b'".into()),
        };
        let limited = bounds(Some(Duration::from_millis(1_001)));
        assert_eq!(
            request(&order, &words(&["tr", "a b", "`"]), &limited, MARK, true),
            r#"if command -v 'tr' >/dev/null 2>&1; then { printf %s 'a
'\''b'\''' | (ulimit -St 2; ulimit -Ht 3; export A='it'\''s'; exec env 'a.b=$(x)' 'UID=7' 'tr' 'a b' '`' >/proc/self/fd/1 2>/proc/self/fd/3 3>&-); } 3>&2 2>/dev/null; e 0123456789abcdef $?; else e 0123456789abcdef none; fi; c 0123456789abcdef
"#
        );
        let order = Order { env: vec![pair("PATH", "/x")], stdin: None, ..order };
        let asked = request(&order, &words(&["a"]), &bounds(None), MARK, false);
        assert!(asked.starts_with("if PATH='/x' command -v 'a' "), "{asked}");
        assert!(asked.contains("(export PATH='/x'; exec 'a' 2>&3 3>&- </dev/null); }"), "{asked}");
    }

    #[test]
    fn output_ends_at_the_mark_wherever_it_is_cut() {
        let said = format!("some\0 0123{MARK} 3 1\n{MARK} clean\n");
        for cut in 0..said.len() {
            let mut output = Output::default();
            output.push(&said.as_bytes()[..cut]);
            let early = output.take(MARK);
            assert!(output.len() <= 10);
            output.push(&said.as_bytes()[cut..]);
            let (before, line) = early.or_else(|| output.take(MARK)).expect("all is there");
            assert_eq!((before.as_slice(), line.as_str()), (&b"some\0 0123"[..], "3 1"), "{cut}");
            assert_eq!(End::parse(&line), Some(End { status: Some(3), is_out_of_memory: true }));
            assert_eq!(output.take(MARK), Some((Vec::new(), "clean".to_owned())), "{cut}");
            assert_eq!(output.take(MARK), None);
        }
        assert_eq!(End::parse("none 0"), Some(End { status: None, is_out_of_memory: false }));
        assert_eq!(End::parse("x 0"), None);
    }

    #[test]
    fn errors_are_passed_on_as_they_come_but_for_the_mark() {
        let said = format!("line\n0123 0{MARK}\n");
        for cut in 0..=said.len() {
            let mut errors = Errors::default();
            let (mut passed, early) = errors.push(&said.as_bytes()[..cut], MARK);
            assert_eq!(early, cut == said.len());
            assert!(cut > 5 || passed.len() == cut, "{cut}");
            if !early {
                let (rest, has_come) = errors.push(&said.as_bytes()[cut..], MARK);
                assert!(has_come);
                passed.extend(rest);
            }
            assert_eq!(passed, b"line\n0123 0", "{cut}");
        }
    }

    #[test]
    fn only_what_a_shell_can_name_is_exported() {
        let names = [("A", true), ("_a1", true), ("1a", false), ("a-b", false), ("UID", false), ("_", false)];
        for (name, is_word) in names {
            assert_eq!(is_exportable(name), is_word, "{name}");
        }
    }
}
