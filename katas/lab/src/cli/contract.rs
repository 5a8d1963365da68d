//! The verb `contract`: what an implementation must offer, for somebody without Rust.

use super::{
    args::{ContractArgs, Lang},
    context::{Context, Ran, Refusal},
};

pub(super) fn run(context: &Context, args: &ContractArgs) -> Ran {
    let Context { kata, screen, .. } = context;
    let (readme, heading, file) = match args.lang {
        Lang::En => (kata.readme, "The contract", "README.md"),
        Lang::Es => (kata.readme_es, "El contrato", "README.es.md"),
    };
    let section = section(readme, heading).ok_or_else(|| {
        Refusal::new(format!(
            "katas/{}/{file} has no section “{heading}”.",
            kata.name
        ))
    })?;
    screen.line(section);
    Ok(0)
}

/// A section of a Markdown text with its heading, up to the next heading of the same or a higher
/// level. Lines within code blocks are no headings.
fn section(text: &str, heading: &str) -> Option<String> {
    let mut level = None;
    let mut fence: Option<String> = None;
    let mut lines = Vec::new();
    for line in text.lines() {
        let mark: String = line
            .trim_start()
            .chars()
            .take_while(|c| "`~".contains(*c))
            .collect();
        match &fence {
            Some(open) if mark.starts_with(open.as_str()) => fence = None,
            None if mark.len() >= 3 => fence = Some(mark),
            None => {
                let hashes = line.chars().take_while(|c| *c == '#').count();
                let title = line[hashes..].strip_prefix(' ').filter(|_| hashes > 0);
                if let Some(title) = title {
                    match level {
                        None if title.trim() == heading => level = Some(hashes),
                        Some(level) if hashes <= level => break,
                        _ => {}
                    }
                }
            }
            Some(_) => {}
        }
        if level.is_some() {
            lines.push(line);
        }
    }
    level.map(|_| lines.join("\n").trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Kata\nx\n## The contract\n\nroutes\n\n### Errors\n\n```sh\n# not a heading\n## nor this\n```\nafter\n\n## Next\nno\n";

    #[test]
    fn a_section_ends_at_its_sibling_and_not_in_a_code_block() {
        assert_eq!(
            section(TEXT, "The contract").unwrap(),
            "## The contract\n\nroutes\n\n### Errors\n\n```sh\n# not a heading\n## nor this\n```\nafter"
        );
        assert_eq!(section(TEXT, "El contrato"), None);
        assert_eq!(section("```\n## The contract\n```\n", "The contract"), None);
    }
}
