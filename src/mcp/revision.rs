//! Protocol revisions and their two eras.

use std::fmt;

/// A revision of MCP that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Revision {
    /// 2024-11-05: HTTP+SSE.
    V2024_11_05,
    /// 2025-03-26: Streamable HTTP, batches.
    V2025_03_26,
    /// 2025-06-18: `MCP-Protocol-Version` header, structured content, elicitation.
    V2025_06_18,
    /// 2025-11-25: the last legacy revision.
    V2025_11_25,
    /// 2026-07-28: stateless, self-describing requests.
    V2026_07_28,
}

impl Revision {
    /// Every served revision, newest first, as `server/discover` and −32022 list them.
    pub const NAMES: [&'static str; 5] =
        ["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];

    /// The newest legacy revision: what `initialize` offers a client that asks for something unknown.
    pub const NEWEST_LEGACY: Self = Self::V2025_11_25;

    /// The revision of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "2024-11-05" => Self::V2024_11_05,
            "2025-03-26" => Self::V2025_03_26,
            "2025-06-18" => Self::V2025_06_18,
            "2025-11-25" => Self::V2025_11_25,
            "2026-07-28" => Self::V2026_07_28,
            _ => return None,
        })
    }

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// Whether requests describe themselves (modern era) instead of leaning on a session (legacy era).
    #[must_use]
    pub const fn is_modern(self) -> bool {
        matches!(self, Self::V2026_07_28)
    }

    /// Whether a body may be a JSON-RPC batch: added in 2025-03-26, removed in 2025-06-18. HTTP+SSE had them as
    /// plain JSON-RPC.
    #[must_use]
    pub const fn has_batches(self) -> bool {
        matches!(self, Self::V2024_11_05 | Self::V2025_03_26)
    }

    /// Whether clients know that a stream may begin with an empty event and break off, to be read on later. Older ones
    /// take the first for a broken message.
    #[must_use]
    pub const fn has_polling(self) -> bool {
        matches!(self, Self::V2025_11_25)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
