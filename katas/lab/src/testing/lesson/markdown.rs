//! As much of Markdown as a lesson uses: headings, fenced blocks, lists, tables, `code` and links.
//!
//! Not a crate: what is asked of the text is how it is built, which a renderer throws away.

/// A text by its headings.
pub(crate) struct Page {
    /// In order; what stands before the first heading is not on a page of ours.
    pub(crate) sections: Vec<Section>,
}

/// From one heading to the next, of whatever level.
#[derive(Default)]
pub(crate) struct Section {
    /// The number of `#`.
    pub(crate) level: usize,
    /// Without them.
    pub(crate) title: String,
    /// What is neither heading nor in a block.
    pub(crate) lines: Vec<String>,
    /// The fenced blocks.
    pub(crate) blocks: Vec<Block>,
}

/// A fenced block.
#[derive(Default)]
pub(crate) struct Block {
    /// The word after the fence.
    pub(crate) language: String,
    /// What is in it.
    pub(crate) lines: Vec<String>,
}

impl Page {
    /// Takes a text apart.
    pub(crate) fn read(text: &str) -> Self {
        let mut sections: Vec<Section> = Vec::new();
        let mut open: Option<Block> = None;
        for line in text.lines() {
            let level = line.chars().take_while(|c| *c == '#').count();
            match (&mut open, line.strip_prefix("```")) {
                (None, None) if level > 0 && line[level..].starts_with(' ') => {
                    let title = line[level + 1..].to_owned();
                    sections.push(Section {
                        level,
                        title,
                        ..Section::default()
                    });
                }
                (None, None) => {
                    if let Some(section) = sections.last_mut() {
                        section.lines.push(line.to_owned());
                    }
                }
                (None, Some(language)) => {
                    open = Some(Block {
                        language: language.to_owned(),
                        lines: Vec::new(),
                    });
                }
                (Some(block), None) => block.lines.push(line.to_owned()),
                (Some(_), Some(_)) => {
                    if let (Some(section), Some(block)) = (sections.last_mut(), open.take()) {
                        section.blocks.push(block);
                    }
                }
            }
        }
        Self { sections }
    }
}

impl Section {
    /// What stands between backticks, sorted: another language puts it elsewhere in a sentence.
    pub(crate) fn code_spans(&self) -> Vec<String> {
        sorted(self.lines.iter().flat_map(|line| code_spans(line)))
    }

    /// The figures outside of code, sorted likewise.
    pub(crate) fn figures(&self) -> Vec<String> {
        sorted(
            self.lines
                .iter()
                .flat_map(|line| figures(&without_code(line))),
        )
    }

    /// One sign for each line that is part of a list or a table; tables with their columns.
    pub(crate) fn shape(&self) -> Vec<String> {
        let shape = |line: &String| match line {
            line if line.starts_with('|') => Some(format!(
                "{} columns",
                without_code(line).matches('|').count() - 1
            )),
            line if line.starts_with("- ") => Some("- ".to_owned()),
            line => item(line).map(|_| "1. ".to_owned()),
        };
        self.lines.iter().filter_map(shape).collect()
    }

    /// The items of its numbered list.
    pub(crate) fn numbered(&self) -> Vec<String> {
        self.lines
            .iter()
            .filter_map(|line| item(line))
            .map(str::to_owned)
            .collect()
    }

    /// The words outside of blocks, in text, lists and tables.
    pub(crate) fn words(&self) -> usize {
        let words = |line: &str| {
            let words = line.split_whitespace();
            words
                .filter(|word| word.chars().any(char::is_alphanumeric))
                .count()
        };
        words(&self.title) + self.lines.iter().map(|line| words(line)).sum::<usize>()
    }

    /// Where its links lead.
    pub(crate) fn links(&self) -> Vec<String> {
        let targets = self.lines.iter().flat_map(|line| line.split("](").skip(1));
        targets
            .filter_map(|rest| Some(rest.split_once(')')?.0.to_owned()))
            .collect()
    }

    /// The name under which a page links to it.
    pub(crate) fn anchor(&self) -> String {
        self.title.to_lowercase().replace(' ', "-")
    }
}

/// What stands between backticks.
pub(crate) fn code_spans(line: &str) -> Vec<String> {
    line.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// The numbers of a line, with a point if there is one within.
pub(crate) fn figures(line: &str) -> Vec<String> {
    let parts = line.split(|c: char| !(c.is_ascii_digit() || c == '.'));
    let numbers = parts.map(|part| part.trim_matches('.').to_owned());
    numbers.filter(|number| !number.is_empty()).collect()
}

fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join(" ")
}

fn item(line: &str) -> Option<&str> {
    let (number, rest) = line.split_once(". ")?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(rest)
}

fn sorted(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut all: Vec<_> = all.collect();
    all.sort();
    all
}
