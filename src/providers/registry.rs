//! All providers of the deployment, merged into one sorted snapshot per server and one over all of them.
//!
//! A snapshot is replaced as a whole when a provider says that something changed; whoever holds one keeps a
//! consistent view, and listing is deterministic.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use super::Provider;
use super::catalog::{PromptEntry, ResourceEntry, TemplateEntry, ToolEntry};
use super::naming;
use crate::error::{Error, Result};
use crate::mcp::bus::Bus;
use crate::policy::Scopes;

/// A thing of a catalogue with the provider that it comes from.
#[derive(Clone)]
pub struct Found<T> {
    /// What was found.
    pub entry: Arc<T>,
    /// Who answers for it.
    pub provider: Arc<dyn Provider>,
    /// The provider's server.
    pub server: Arc<str>,
}

/// One list, in order, with an index by key.
pub struct Listed<T> {
    /// Entries in order of their keys.
    pub entries: Vec<(Arc<str>, Found<T>)>,
    index: HashMap<Arc<str>, usize>,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), index: HashMap::new() }
    }
}

impl<T> Listed<T> {
    fn add(&mut self, key: Arc<str>, found: Found<T>) {
        self.entries.push((key, found));
    }

    /// Sorts by key, then by server.
    fn finish(&mut self) {
        self.entries.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.server.cmp(&b.1.server)));
        for (at, (key, _)) in self.entries.iter().enumerate() {
            self.index.entry(key.clone()).or_insert(at);
        }
    }

    /// The entry of this key. Where several servers have it, the first one that the caller can see.
    #[must_use]
    pub fn get(&self, key: &str, visible: impl Fn(&Found<T>) -> bool) -> Option<&Found<T>> {
        let first = *self.index.get(key)?;
        let same = self.entries[first..].iter().take_while(|(other, _)| **other == *key);
        same.map(|(_, found)| found).find(|found| visible(found))
    }

    /// Every entry that the caller can see, from `start` on; of each key, the one that [`get`](Self::get) finds.
    pub fn visible(
        &self,
        start: usize,
        visible: impl Fn(&Found<T>) -> bool,
    ) -> impl Iterator<Item = &(Arc<str>, Found<T>)> {
        let mut last: Option<&str> = None;
        self.entries[start..].iter().filter(move |(key, found)| {
            let shown = last != Some(&**key) && visible(found);
            if shown {
                last = Some(key);
            }
            shown
        })
    }
}

/// Everything that one endpoint offers, before the caller's scopes.
#[derive(Default)]
pub struct Snapshot {
    /// Tools by name.
    pub tools: Listed<ToolEntry>,
    /// Resources by URI.
    pub resources: Listed<ResourceEntry>,
    /// Templates by template text.
    pub templates: Listed<TemplateEntry>,
    /// Prompts by name.
    pub prompts: Listed<PromptEntry>,
}

impl Snapshot {
    fn add(&mut self, provider: &Arc<dyn Provider>, server: &Arc<str>) {
        fn found<T>(entry: &Arc<T>, provider: &Arc<dyn Provider>, server: &Arc<str>) -> Found<T> {
            Found { entry: entry.clone(), provider: provider.clone(), server: server.clone() }
        }
        let catalog = provider.catalog();
        for entry in &catalog.tools {
            self.tools.add(entry.name.clone(), found(entry, provider, server));
        }
        for entry in &catalog.resources {
            self.resources.add(entry.uri.clone(), found(entry, provider, server));
        }
        for entry in &catalog.templates {
            self.templates.add(entry.template.as_str().into(), found(entry, provider, server));
        }
        for entry in &catalog.prompts {
            self.prompts.add(entry.name.clone(), found(entry, provider, server));
        }
    }

    /// Who answers for this resource: the resource of that URI, else the first template that fits, of a server that the
    /// scopes allow.
    #[must_use]
    pub fn resource(&self, uri: &str, scopes: &Scopes) -> Option<(Arc<dyn Provider>, Arc<str>)> {
        if let Some(found) = self.resources.get(uri, |found| scopes.allows_server(&found.server)) {
            return Some((found.provider.clone(), found.server.clone()));
        }
        let fits = |found: &&Found<TemplateEntry>| {
            scopes.allows_server(&found.server) && found.entry.template.matches(uri).is_some()
        };
        let found = self.templates.entries.iter().map(|(_, found)| found).find(fits)?;
        Some((found.provider.clone(), found.server.clone()))
    }

    fn finish(mut self) -> Arc<Self> {
        self.tools.finish();
        self.resources.finish();
        self.templates.finish();
        self.prompts.finish();
        Arc::new(self)
    }
}

struct Merged {
    generation: u64,
    all: Arc<Snapshot>,
    servers: BTreeMap<Arc<str>, Arc<Snapshot>>,
}

/// All providers.
pub struct Registry {
    providers: Vec<(Arc<str>, Arc<dyn Provider>)>,
    bus: Bus,
    merged: RwLock<Arc<Merged>>,
}

impl Registry {
    /// Longest server name.
    const MAX_NAME: usize = 64;

    /// Takes the providers and hands each its notifier.
    ///
    /// # Errors
    /// Where the name of a server, tool or prompt or the URI of a resource is malformed or used twice.
    pub fn new(providers: Vec<Arc<dyn Provider>>, bus: &Bus) -> Result<Self> {
        let mut named: Vec<(Arc<str>, Arc<dyn Provider>)> = Vec::new();
        for provider in providers {
            let name: Arc<str> = provider.server().into();
            let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
            if name.is_empty() || name.len() > Self::MAX_NAME || !name.bytes().all(good) {
                return Err(Error::Invalid(format!(
                    "server {name:?}: a name is 1 to {} characters of a-z 0-9 - _",
                    Self::MAX_NAME
                )));
            }
            if named.iter().any(|(other, _)| *other == name) {
                return Err(Error::Invalid(format!(
                    "server {name:?}: two providers have this name; rename one"
                )));
            }
            naming::check(&provider.catalog())
                .map_err(|problem| Error::Invalid(format!("server {name:?}: {problem}")))?;
            provider.attach(bus.notifier(name.clone()));
            named.push((name, provider));
        }
        let merged = RwLock::new(merge(&named, bus.generation()));
        Ok(Self { providers: named, bus: bus.clone(), merged })
    }

    /// What is merged, made anew where a provider said since that something changed.
    fn merged(&self) -> Arc<Merged> {
        let generation = self.bus.generation();
        let current = self.merged.read().unwrap_or_else(PoisonError::into_inner).clone();
        if current.generation == generation {
            return current;
        }
        let fresh = merge(&self.providers, generation);
        *self.merged.write().unwrap_or_else(PoisonError::into_inner) = fresh.clone();
        fresh
    }

    /// What `/mcp` offers (`None`), or one server; `None` where there is no such server.
    #[must_use]
    pub fn snapshot(&self, server: Option<&str>) -> Option<Arc<Snapshot>> {
        let merged = self.merged();
        match server {
            None => Some(merged.all.clone()),
            Some(name) => merged.servers.get(name).cloned(),
        }
    }

    /// The names of all servers, in order.
    #[must_use]
    pub fn servers(&self) -> Vec<Arc<str>> {
        self.merged().servers.keys().cloned().collect()
    }
}

fn merge(providers: &[(Arc<str>, Arc<dyn Provider>)], generation: u64) -> Arc<Merged> {
    let mut all = Snapshot::default();
    let mut servers = BTreeMap::new();
    for (name, provider) in providers {
        all.add(provider, name);
        let mut one = Snapshot::default();
        one.add(provider, name);
        servers.insert(name.clone(), one.finish());
    }
    Arc::new(Merged { generation, all: all.finish(), servers })
}
