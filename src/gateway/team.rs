//! Who asks, as far as routes and policy go.

use std::sync::Arc;

use super::Policy;
use crate::route::RouteTable;

/// A team, or everybody who is of none.
#[derive(Debug, Clone)]
pub struct Team {
    /// Its name; everybody has none.
    pub name: Option<Arc<str>>,
    /// What may be asked of whom.
    pub routes: RouteTable,
    /// What may be had at all.
    pub policy: Policy,
}

impl Team {
    /// Its name in logs; a dash for everybody.
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or("-")
    }
}
