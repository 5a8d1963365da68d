//! The lesson keeps its word: both languages say the same, every check is named where it belongs,
//! and every command in it can be typed.
//!
//! A text that has outlived the code is worse than none, since a learner believes it. Nothing here
//! starts a service, so these trials cost milliseconds.

mod markdown;

use std::{collections::BTreeSet, path::Path, sync::Arc};

use libtest_mimic::Trial;
use markdown::{Block, Page, Section};

use crate::{cli, kata::Kata};

/// A section that both languages have, by its place on the page and its heading in each.
struct Heading {
    english: &'static str,
    spanish: &'static str,
}

const CONTRACT: Heading = Heading {
    english: "The contract",
    spanish: "El contrato",
};
const RULES: Heading = Heading {
    english: "The rules",
    spanish: "Las reglas",
};
const TASK: Heading = Heading {
    english: "Your task",
    spanish: "Tu tarea",
};
const RUN: Heading = Heading {
    english: "Run it",
    spanish: "Ejecútalo",
};
const HINTS: Heading = Heading {
    english: "Hints",
    spanish: "Pistas",
};

/// The step whose hints the lesson shows.
const HINTS_SHOWN: usize = 2;

/// How long a lesson may be, without its contract and its blocks of code.
const WORDS: std::ops::RangeInclusive<usize> = 900..=1_500;

type Said = Result<(), String>;

/// The trials of a kata's lesson.
pub(super) fn trials(kata: &Arc<Kata>) -> Vec<Trial> {
    let kata = kata.clone();
    let lesson = Arc::new(Lesson { kata });
    let trial = |name: &str, run: fn(&Lesson) -> Said| {
        let lesson = lesson.clone();
        Trial::test(format!("lesson: {name}"), move || Ok(run(&lesson)?))
    };
    vec![
        trial("both languages have the same headings", same_headings),
        trial("both languages show the same code", same_code),
        trial(
            "both languages name the same things and figures",
            same_names_and_figures,
        ),
        trial("both languages have the same lists and tables", same_shape),
        trial("the rules name every check", rules_name_every_check),
        trial(
            "each step of the task names its own checks",
            steps_name_their_checks,
        ),
        trial("every command can be typed", commands_parse),
        trial(
            "what is shown as output is output of this kata",
            output_is_ours,
        ),
        trial("the hints shown are the program's", hints_are_the_programs),
        trial("the lesson has its length", has_its_length),
        trial(
            "links inside the repository lead somewhere",
            links_lead_somewhere,
        ),
    ]
}

/// A kata with its two pages.
struct Lesson {
    kata: Arc<Kata>,
}

impl Lesson {
    fn pages(&self) -> [(&'static str, Page); 2] {
        [
            ("README.md", Page::read(self.kata.readme)),
            ("README.es.md", Page::read(self.kata.readme_es)),
        ]
    }

    /// The same section in both languages.
    fn both(&self, heading: &Heading) -> Result<[(&'static str, Section); 2], String> {
        let [english, spanish] = self.pages();
        let find = |(file, page): (&'static str, Page), title: &str| {
            let found = page.sections.into_iter().find(|s| s.title == title);
            found
                .map(|section| (file, section))
                .ok_or(format!("{file} has no section {title:?}"))
        };
        Ok([
            find(english, heading.english)?,
            find(spanish, heading.spanish)?,
        ])
    }

    /// Sections in pairs, with a name for both.
    fn pairs(&self) -> impl Iterator<Item = (String, Section, Section)> {
        let [(_, english), (_, spanish)] = self.pages();
        let pairs = english.sections.into_iter().zip(spanish.sections);
        pairs.map(|(one, other)| (format!("“{}” and “{}”", one.title, other.title), one, other))
    }

    fn check_names(&self) -> BTreeSet<String> {
        let checks = self.kata.checks();
        checks.map(|(_, check)| check.name.to_owned()).collect()
    }

    /// The checks that a text names.
    fn named(&self, spans: Vec<String>) -> BTreeSet<String> {
        let known = self.check_names();
        let named = spans.into_iter().filter(|span| known.contains(span));
        named.collect()
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, english: T, spanish: T) -> Said {
    match english == spanish {
        true => Ok(()),
        false => Err(format!(
            "{what}\n  English {english:?}\n  Spanish {spanish:?}"
        )),
    }
}

fn same_headings(lesson: &Lesson) -> Said {
    let [(_, english), (_, spanish)] = lesson.pages();
    let levels = |page: &Page| page.sections.iter().map(|s| s.level).collect::<Vec<_>>();
    same("levels of the headings", levels(&english), levels(&spanish))?;
    // The verb `contract` looks for these, so they must stand at the same place, too.
    let at = |page: &Page, title: &str| page.sections.iter().position(|s| s.title == title);
    for Heading {
        english: one,
        spanish: other,
    } in [CONTRACT, RULES, TASK, RUN, HINTS]
    {
        same(
            &format!("place of {one:?}"),
            at(&english, one),
            at(&spanish, other),
        )?;
    }
    Ok(())
}

fn same_code(lesson: &Lesson) -> Said {
    for (at, english, spanish) in lesson.pairs() {
        same(
            &format!("number of blocks in {at}"),
            english.blocks.len(),
            spanish.blocks.len(),
        )?;
        for (one, other) in english.blocks.iter().zip(&spanish.blocks) {
            same(
                &format!("kind of a block in {at}"),
                &one.language,
                &other.language,
            )?;
            // A drawing has words in it, and those are translated; its times and sums are not.
            match one.language.as_str() {
                "text" => same(&format!("a drawing in {at}"), drawn(one), drawn(other))?,
                _ => same(&format!("a block in {at}"), code(one), code(other))?,
            }
        }
    }
    Ok(())
}

fn drawn(block: &Block) -> Vec<Vec<String>> {
    block
        .lines
        .iter()
        .map(|line| markdown::figures(line))
        .collect()
}

/// Without the lines that are comments: those are translated.
fn code(block: &Block) -> Vec<&String> {
    let sign = match block.language.as_str() {
        "sh" => "#",
        "sql" => "--",
        _ => return block.lines.iter().collect(),
    };
    block
        .lines
        .iter()
        .filter(|line| !line.trim_start().starts_with(sign))
        .collect()
}

fn same_names_and_figures(lesson: &Lesson) -> Said {
    for (at, english, spanish) in lesson.pairs() {
        same(
            &format!("`code` in {at}"),
            english.code_spans(),
            spanish.code_spans(),
        )?;
        same(
            &format!("figures in {at}"),
            english.figures(),
            spanish.figures(),
        )?;
    }
    Ok(())
}

fn same_shape(lesson: &Lesson) -> Said {
    for (at, english, spanish) in lesson.pairs() {
        same(
            &format!("lists and tables in {at}"),
            english.shape(),
            spanish.shape(),
        )?;
    }
    Ok(())
}

fn rules_name_every_check(lesson: &Lesson) -> Said {
    for (file, section) in lesson.both(&RULES)? {
        let named = lesson.named(section.code_spans());
        let missing: Vec<_> = lesson.check_names().difference(&named).cloned().collect();
        if !missing.is_empty() {
            return Err(format!("no rule of {file} promises {}", missing.join(", ")));
        }
    }
    Ok(())
}

fn steps_name_their_checks(lesson: &Lesson) -> Said {
    let kata = &lesson.kata;
    let number_of_checks = kata.checks().count().to_string();
    for (file, section) in lesson.both(&TASK)? {
        let items = section.numbered();
        if items.len() != kata.steps.len() {
            return Err(format!(
                "{file} has {} steps, the kata {}",
                items.len(),
                kata.steps.len()
            ));
        }
        for (number, (item, step)) in items.iter().zip(&kata.steps).enumerate() {
            let expected = step
                .checks
                .iter()
                .map(|check| check.name.to_owned())
                .collect();
            let saw = lesson.named(markdown::code_spans(item));
            if saw != expected {
                return Err(format!(
                    "{file}, step {}: names {saw:?}, has {expected:?}",
                    number + 1
                ));
            }
        }
        if !section.figures().contains(&number_of_checks) {
            return Err(format!(
                "{file} does not say that there are {number_of_checks} checks"
            ));
        }
    }
    Ok(())
}

/// What follows `--` in each command for this kata, as words.
fn commands(kata: &Kata, page: &Page) -> Vec<(String, Vec<String>)> {
    let prefix = format!("cargo run -p {}", kata.name);
    let lines = page.sections.iter().flat_map(|section| &section.blocks);
    let lines = lines
        .filter(|block| block.language == "sh")
        .flat_map(|block| &block.lines);
    let ours = lines.filter_map(|line| Some((line, line.strip_prefix(&prefix)?)));
    ours.map(|(line, rest)| {
        let rest = rest.trim_start().strip_prefix("-- ").unwrap_or_default();
        (line.clone(), words(rest))
    })
    .collect()
}

/// Splits as a shell does, as far as a lesson needs it: blanks, and double quotes.
fn words(line: &str) -> Vec<String> {
    let mut quoted = false;
    let mut words = vec![String::new()];
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().expect("there is always one").push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn commands_parse(lesson: &Lesson) -> Said {
    let kata = &lesson.kata;
    if cli::accepts(kata, &words("check --no-such-option")) {
        return Err("the command line takes whatever it gets".to_owned());
    }
    for (file, page) in lesson.pages() {
        let commands = commands(kata, &page);
        if commands.is_empty() {
            return Err(format!("{file} shows no command"));
        }
        for (line, words) in commands {
            if !cli::accepts(kata, &words) {
                return Err(format!("{file}: `{line}` is refused"));
            }
            let value = |option: &str| {
                let at = words.iter().position(|word| word == option)?;
                words.get(at + 1).map(String::as_str)
            };
            let hint = (words.first().map(String::as_str) == Some("hint")).then(|| words.get(1));
            let steps = [value("--step"), hint.flatten().map(String::as_str)];
            let is_step = |step: &str| {
                step.parse()
                    .is_ok_and(|number: usize| (1..=kata.steps.len()).contains(&number))
            };
            if !steps.into_iter().flatten().all(is_step) {
                return Err(format!("{file}: `{line}`: there is no such step"));
            }
            if value("--variant").is_some_and(|id| kata.variant(id).is_none()) {
                return Err(format!("{file}: `{line}`: there is no such variant"));
            }
        }
    }
    Ok(())
}

/// The output is pasted by hand from a run; its first line at least must be this program's.
fn output_is_ours(lesson: &Lesson) -> Said {
    let kata = &lesson.kata;
    for (file, section) in lesson.both(&RUN)? {
        let shown = section
            .blocks
            .iter()
            .find(|block| block.language == "console");
        let first = shown.and_then(|block| block.lines.first());
        let begins = format!("kata {} · {}", kata.number(), kata.title);
        let is_ours = |line: &String| line.starts_with(&begins) && line.ends_with(kata.promise);
        if !first.is_some_and(is_ours) {
            return Err(format!("{file} shows {first:?} under “{}”", section.title));
        }
    }
    Ok(())
}

fn hints_are_the_programs(lesson: &Lesson) -> Said {
    let [(file, english), _] = lesson.both(&HINTS)?;
    let shown = english.numbered();
    for (hint, shown) in lesson.kata.steps[HINTS_SHOWN - 1].hints.iter().zip(&shown) {
        if hint != shown {
            return Err(format!(
                "{file} shows\n  {shown}\nand the program says\n  {hint}"
            ));
        }
    }
    same("number of hints", shown.len(), 3)
}

fn has_its_length(lesson: &Lesson) -> Said {
    for (file, page) in lesson.pages() {
        let title = [CONTRACT.english, CONTRACT.spanish];
        let prose = page
            .sections
            .iter()
            .take_while(|s| !title.contains(&s.title.as_str()));
        let words: usize = prose.map(Section::words).sum();
        if !WORDS.contains(&words) {
            return Err(format!(
                "{file}: {words} words, and there should be {WORDS:?}"
            ));
        }
    }
    Ok(())
}

fn links_lead_somewhere(lesson: &Lesson) -> Said {
    for (file, page) in lesson.pages() {
        for target in page.sections.iter().flat_map(Section::links) {
            let found = match target.split_once('#') {
                _ if target.contains("://") => true,
                Some(("", anchor)) => page.sections.iter().any(|s| s.anchor() == anchor),
                _ => Path::new(&target).is_file(),
            };
            if !found {
                return Err(format!("{file} links to {target}"));
            }
        }
    }
    Ok(())
}
