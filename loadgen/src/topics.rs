//! Topic names from a template, and the filters that match them.
//!
//! Placeholders: `{pub}` the publisher's number, `{k}` the number of the topic within the publisher, `{run}` the id of
//! the run. Every topic lies under `loadgen/RUNID/`, so that a run meets no message of anyone else.

/// A checked template.
#[derive(Clone, PartialEq, Debug)]
pub struct Template {
    text: String,
    prefix: String,
}

impl Template {
    /// Checks a template; what it makes lies under `loadgen/<run_id>/`.
    pub fn new(text: &str, run_id: &str) -> Result<Template, String> {
        if text.is_empty() || text.contains(['+', '#', '\0']) {
            return Err(format!("the topic template '{text}' must not be empty or hold '+' or '#'"));
        }
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            let end =
                rest[at..].find('}').ok_or(format!("'{{' without '}}' in the topic template '{text}'"))?;
            let name = &rest[at + 1..at + end];
            if !["pub", "k", "run"].contains(&name) {
                return Err(format!(
                    "unknown placeholder {{{name}}} in the topic template: use {{pub}}, {{k}}, {{run}}"
                ));
            }
            rest = &rest[at + end + 1..];
        }
        let template = Template { text: text.replace("{run}", run_id), prefix: format!("loadgen/{run_id}/") };
        // Numbers have at most eight digits (2^24 streams).
        if template.prefix.len() + template.text.len() + 16 > usize::from(u16::MAX) {
            return Err("the topic template is too long".into());
        }
        Ok(template)
    }

    /// Everything of a run lies under this.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The topic of a publisher's `n`th stream.
    pub fn name(&self, publisher: u32, n: u32) -> String {
        let topic = self.text.replace("{pub}", &publisher.to_string()).replace("{k}", &n.to_string());
        format!("{}{topic}", self.prefix)
    }

    /// What a client subscribes to whom nobody publishes anything; `kind` and `number` make it its own.
    pub fn idle(&self, kind: &str, number: u32) -> String {
        format!("{}{kind}/{number}", self.prefix)
    }

    /// A filter that matches the topics of every publisher (`None`) or of one.
    pub fn filter(&self, publisher: Option<u32>) -> String {
        let level = |level: &str| {
            if level.contains("{k}") || (publisher.is_none() && level.contains("{pub}")) {
                return "+".into();
            }
            match publisher {
                Some(publisher) => level.replace("{pub}", &publisher.to_string()),
                None => level.to_string(),
            }
        };
        let levels: Vec<String> = self.text.split('/').map(level).collect();
        format!("{}{}", self.prefix, levels.join("/"))
    }

    /// Whether publishers, and topics of one publisher, get names of their own.
    pub fn distinguishes(&self, publishers: u32, topics: u32) -> bool {
        (publishers <= 1 || self.text.contains("{pub}")) && (topics <= 1 || self.text.contains("{k}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_filters() {
        let t = Template::new("site/{pub}/x{k}/{run}", "r1").unwrap();
        assert_eq!(t.name(7, 2), "loadgen/r1/site/7/x2/r1");
        assert_eq!(t.filter(Some(7)), "loadgen/r1/site/7/+/r1");
        assert_eq!(t.filter(None), "loadgen/r1/site/+/+/r1");
        assert!(t.distinguishes(9, 9));
        assert!(!Template::new("a/{pub}", "r").unwrap().distinguishes(9, 2));
        assert!(!Template::new("a", "r").unwrap().distinguishes(2, 1));
    }

    #[test]
    fn bad_templates_are_refused() {
        for bad in ["", "a/+", "a/#", "a/{x}", "a/{pub"] {
            assert!(Template::new(bad, "r").is_err(), "{bad}");
        }
    }
}
