//! `diagnose_domain`: a prompt that puts `dns_resolve` to use.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::mcp::content::{Content, PromptMessage, Role};
use crate::providers::{Call, PromptResult, PromptSpec, Toolkit};

/// Longest name that is put into the prompt, in characters; DNS names have at most 253.
const MAX_NAME: usize = 253;

/// Adds the prompt.
///
/// # Errors
/// None in practice: the description is fixed.
pub fn add(kit: Toolkit) -> Result<Toolkit> {
    let spec = PromptSpec::new("diagnose_domain")
        .title("Check a domain's DNS")
        .description("Has the model check the DNS records of a domain for mistakes, with dns_resolve.")
        .argument("domain", "The domain to check, such as example.com", true)
        .argument("symptom", "What does not work, if anything", false);
    kit.prompt(spec, |_call: Call, arguments: BTreeMap<String, String>| async move {
        let clean = |text: &String| text.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect::<String>();
        let domain = arguments.get("domain").map(clean).unwrap_or_default();
        let symptom = arguments.get("symptom").map(clean).filter(|s| !s.is_empty());
        let mut text = format!(
            "Check the DNS of the domain `{domain}` with the tool dns_resolve. Look up its NS, A, AAAA, MX and TXT \
             records; follow CNAMEs; look up the reverse record of each address. Then list what is missing, \
             inconsistent or unusual, each with the record that shows it and what to change."
        );
        if let Some(symptom) = symptom {
            text.push_str(&format!(" The reported symptom: {symptom}."));
        }
        let message = PromptMessage { role: Role::User, content: Content::text(text) };
        Ok(PromptResult {
 description: Some(format!("DNS check of {domain}")),
 messages: vec![message],
 ..PromptResult::default()
 }.into())
    })
}
