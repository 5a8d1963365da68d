//! The pages of the repository, read as Markdown as far as is needed.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// One page.
#[derive(Clone)]
pub(crate) struct Page {
    pub(crate) path: PathBuf,
    text: String,
}

impl Page {
    /// The pages at the root, of each kata, and of each example in another language.
    pub(crate) fn all(root: &Path) -> Vec<Self> {
        let mut folders = vec![root.to_owned()];
        for kata in below(&root.join("katas")) {
            folders.extend(below(&kata.join("examples")));
            folders.push(kata);
        }
        let files = folders.iter().flat_map(|folder| below(folder));
        let mut pages: Vec<_> = files
            .filter(|path| path.extension().is_some_and(|end| end == "md"))
            .filter_map(|path| {
                let text = fs::read_to_string(&path).ok()?;
                Some(Self { path, text })
            })
            .collect();
        pages.sort_by(|a, b| a.path.cmp(&b.path));
        pages
    }

    /// Whether it says this anywhere.
    pub(crate) fn contains(&self, text: &str) -> bool {
        self.text.contains(text)
    }

    /// The commands in its `sh` blocks, in order.
    pub(crate) fn commands(&self) -> Vec<String> {
        let blocks = self.blocks();
        let shell = blocks.iter().filter_map(|block| block.strip_prefix("sh\n"));
        let lines = shell.flat_map(str::lines).map(str::trim);
        lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(str::to_owned)
            .collect()
    }

    /// What programs print, in its `console` blocks.
    pub(crate) fn output(&self) -> Vec<String> {
        let blocks = self.blocks();
        let console = blocks
            .iter()
            .filter_map(|block| block.strip_prefix("console\n"));
        console.flat_map(str::lines).map(str::to_owned).collect()
    }

    /// Its blocks of code, each with its language as the first line.
    pub(crate) fn blocks(&self) -> Vec<String> {
        let mut blocks = Vec::new();
        let mut block: Option<String> = None;
        for line in self.text.lines() {
            match (line.trim_start().strip_prefix("```"), &mut block) {
                (Some(_), Some(_)) => blocks.extend(block.take()),
                (Some(language), None) => block = Some(format!("{}\n", language.trim())),
                (None, Some(block)) => block.push_str(&format!("{line}\n")),
                (None, None) => {}
            }
        }
        blocks
    }

    /// The levels of its headings, in order.
    pub(crate) fn heading_levels(&self) -> Vec<usize> {
        let hashes = |line: &str| line.chars().take_while(|c| *c == '#').count();
        let prose = self.prose();
        prose
            .iter()
            .map(|line| hashes(line))
            .filter(|level| *level > 0)
            .collect()
    }

    /// How many rows its tables have in all.
    pub(crate) fn table_rows(&self) -> usize {
        self.prose()
            .iter()
            .filter(|line| line.starts_with('|'))
            .count()
    }

    /// Links to files that are not there, each with the page.
    pub(crate) fn broken_links(&self) -> Vec<String> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let prose = self.prose().join("\n");
        let targets = prose
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        targets
            .filter(|target| !target.contains("://") && !target.starts_with('#'))
            .filter(|target| {
                let file = target.split('#').next().unwrap_or_default();
                !folder.join(file).exists()
            })
            .map(|target| format!("{}: {target}", self.path.display()))
            .collect()
    }

    /// Its lines without the blocks of code.
    fn prose(&self) -> Vec<&str> {
        let mut is_code = false;
        let mut lines = Vec::new();
        for line in self.text.lines() {
            if line.trim_start().starts_with("```") {
                is_code = !is_code;
            } else if !is_code {
                lines.push(line);
            }
        }
        lines
    }
}

fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// The words of a command; double quotes hold one together.
pub(crate) fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut is_quoted = false;
    for c in command.chars() {
        match c {
            '"' => is_quoted = !is_quoted,
            ' ' if !is_quoted => words.push(String::new()),
            c => words.last_mut().expect("there is always one").push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}
