//! A label as a person writes it: `gpu=a100`.

use std::{collections::BTreeMap, str::FromStr};

use super::error::CliError;
use crate::domain::labels::LABEL_ACCEPTED;

/// One label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    key: String,
    value: String,
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
        let (key, value) = pair.ok_or_else(|| {
            format!("accepted is KEY=VALUE, such as gpu=a100: each {LABEL_ACCEPTED}")
        })?;
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

/// Labels by their keys; what they may be says the service.
///
/// # Errors
/// A key that is given twice.
pub fn by_key(given: &[Label]) -> Result<BTreeMap<String, String>, CliError> {
    let mut labels = BTreeMap::new();
    for Label { key, value } in given {
        if let Some(before) = labels.insert(key.clone(), value.clone()) {
            let message = format!("label {key} is given twice, as {before} and as {value}");
            return Err(CliError::usage(message));
        }
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_a_key_and_a_value_and_each_key_is_given_once() {
        let label = |text: &str| text.parse::<Label>();
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let given = [label("gpu=a100").unwrap(), label("zone=eu=1").unwrap()];
        let labels = by_key(&given).unwrap();
        assert_eq!(labels, BTreeMap::from([pair("gpu", "a100"), pair("zone", "eu=1")]));
        assert!(by_key(&[given[0].clone(), label("gpu=l4").unwrap()]).is_err());
        for wrong in ["", "gpu", "=a100"] {
            assert!(label(wrong).unwrap_err().contains("KEY=VALUE"), "{wrong}");
        }
    }
}
