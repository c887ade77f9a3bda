//! Content that tools, resources and prompts hand back (MCP schema, `ContentBlock`, `ResourceContents`,
//! `PromptMessage`).

use serde::Serialize;
use serde_json::{Map, Value};

use super::revision::Revision;

/// One block of a tool result or prompt message.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Content {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// An image.
    Image {
        /// Base64.
        data: String,
        /// Such as `image/png`.
        #[serde(rename = "mimeType")]
        mime_type: String,
    },
    /// Sound.
    Audio {
        /// Base64.
        data: String,
        /// Such as `audio/wav`.
        #[serde(rename = "mimeType")]
        mime_type: String,
    },
    /// A resource, embedded whole.
    Resource {
        /// The resource.
        resource: ResourceContents,
    },
    /// A pointer to a resource.
    ResourceLink {
        /// Where it is.
        uri: String,
        /// Its name.
        name: String,
        /// Its type, where known.
        #[serde(rename = "mimeType", skip_serializing_if = "Option::is_none")]
        mime_type: Option<String>,
    },
    /// Anything else, passed through as it is.
    #[serde(untagged)]
    Other(Value),
}

impl Content {
    /// A text block.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into() }
    }

    /// The block in words of this revision: sound came with 2025-03-26, links to resources with 2025-06-18 ("Tool Result"),
    /// and older clients refuse a whole result for a block that they do not know. What no revision knows stays as it is.
    pub(super) fn spoken_in(&mut self, revision: Revision) {
        if revision < Revision::V2025_03_26 && self.kind() == Some("audio") {
            *self = self.sound_as_resource();
        }
        if revision < Revision::V2025_06_18 && self.kind() == Some("resource_link") {
            *self = self.link_as_text();
        }
    }

    fn kind(&self) -> Option<&str> {
        match self {
            Self::Audio { .. } => Some("audio"),
            Self::ResourceLink { .. } => Some("resource_link"),
            Self::Other(block) => block.get("type").and_then(Value::as_str),
            Self::Text { .. } | Self::Image { .. } | Self::Resource { .. } => None,
        }
    }

    /// A field of a block of whatever kind, as text.
    fn said(&self, name: &str) -> String {
        let wire = serde_json::to_value(self).unwrap_or_default();
        wire.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    fn sound_as_resource(&self) -> Self {
        let resource = ResourceContents::blob("attachment:audio", &self.said("mimeType"), self.said("data"));
        let mut block = serde_json::to_value(self).unwrap_or_default();
        let Value::Object(fields) = &mut block else { return Self::Resource { resource } };
        // Annotations and whatever else the block says stay.
        fields.retain(|name, _| name != "data" && name != "mimeType");
        fields.insert("type".to_owned(), "resource".into());
        fields.insert("resource".to_owned(), serde_json::to_value(resource).unwrap_or_default());
        Self::Other(block)
    }

    fn link_as_text(&self) -> Self {
        let (name, uri) = (self.said("name"), self.said("uri"));
        Self::text(if name.is_empty() { uri } else { format!("{name}: {uri}") })
    }
}

/// The contents of one resource: text or base64.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceContents {
    /// Which resource this is.
    pub uri: String,
    /// Its type, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
    /// Text, or binary data.
    #[serde(flatten)]
    pub body: ResourceBody,
    /// `_meta`, passed through.
    #[serde(rename = "_meta", skip_serializing_if = "Map::is_empty")]
    pub meta: Map<String, Value>,
}

/// What a resource holds.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ResourceBody {
    /// Text.
    Text(String),
    /// Base64.
    Blob(String),
}

impl ResourceContents {
    /// A text resource.
    #[must_use]
    pub fn text(uri: impl Into<String>, mime_type: &str, text: impl Into<String>) -> Self {
        Self {
            uri: uri.into(),
            mime_type: Some(mime_type.to_owned()),
            body: ResourceBody::Text(text.into()),
            meta: Map::new(),
        }
    }

    /// A binary resource; `blob` is base64.
    #[must_use]
    pub fn blob(uri: impl Into<String>, mime_type: &str, blob: impl Into<String>) -> Self {
        Self {
            uri: uri.into(),
            mime_type: Some(mime_type.to_owned()),
            body: ResourceBody::Blob(blob.into()),
            meta: Map::new(),
        }
    }
}

/// Who says a prompt message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The user.
    User,
    /// The model.
    Assistant,
}

/// One message of a prompt.
#[derive(Debug, Clone, Serialize)]
pub struct PromptMessage {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: Content,
}

impl PromptMessage {
    /// Something that the user says.
    #[must_use]
    pub fn user(content: Content) -> Self {
        Self { role: Role::User, content }
    }
}

/// What a tool hands back when it is done.
#[derive(Debug, Clone, Default)]
pub struct ToolResult {
    /// What the model reads.
    pub content: Vec<Content>,
    /// What a program reads; fits the tool's output schema where it has one.
    pub structured: Option<Value>,
    /// A business error: the tool says no, and the text says what to do next.
    pub is_error: bool,
    /// `_meta`.
    pub meta: Map<String, Value>,
}

impl ToolResult {
    /// A result of one text block.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self { content: vec![Content::text(text)], ..Self::default() }
    }

    /// A business error; `text` should tell the model what to do next.
    #[must_use]
    pub fn error(text: impl Into<String>) -> Self {
        Self { is_error: true, ..Self::text(text) }
    }

    /// A structured result, repeated as text for clients that read only that (2025-06-18 "Structured Content").
    ///
    /// # Errors
    /// Where `value` cannot be written as JSON.
    pub fn structured(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        let value = serde_json::to_value(value)?;
        Ok(Self { structured: Some(value.clone()), ..Self::text(value.to_string()) })
    }
}
