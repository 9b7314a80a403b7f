//! Policies as a file has them, with notes as comments.

use super::{Imported, ImportedPolicy, Note, Unit};

/// Longest line of a comment, in characters.
const LINE_MAX: usize = 100;

/// The file of policies.
pub fn yaml(imported: &Imported) -> String {
    let mut out = String::new();
    for note in &imported.notes {
        comment(&mut out, "", note);
    }
    out.push_str("policies:\n");
    for policy in &imported.policies {
        write_policy(&mut out, policy);
    }
    out
}

fn write_policy(out: &mut String, policy: &ImportedPolicy) {
    for note in &policy.notes {
        comment(out, "  ", note);
    }
    if let Unit::Run(resume) = policy.unit {
        let text = format!("for runs; each further run begins {}", resume.name());
        comment(out, "  ", &Note { field: String::new(), text });
    }
    let spec = serde_saphyr::to_string(&policy.spec).unwrap_or_default();
    let body = spec.trim_end();
    let name = key(&policy.name);
    if body.is_empty() || body == "{}" {
        out.push_str(&format!("  {name}: {{}}\n"));
        return;
    }
    out.push_str(&format!("  {name}:\n"));
    for line in body.lines() {
        out.push_str(&format!("    {line}\n"));
    }
}

/// A name as a key; in quotes where YAML might read something else.
fn key(name: &str) -> String {
    let letters =
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic());
    let known = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    if letters && begins && !known.contains(&name.to_lowercase().as_str()) {
        name.to_owned()
    } else {
        format!("\"{name}\"")
    }
}

/// A note as lines of comment.
fn comment(out: &mut String, indent: &str, note: &Note) {
    let text = match note.field.as_str() {
        "" => note.text.clone(),
        field => format!("{field}: {}", note.text),
    };
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + word.chars().count() + 1 > LINE_MAX {
            out.push_str(&format!("{indent}# {line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    out.push_str(&format!("{indent}# {line}\n"));
}
