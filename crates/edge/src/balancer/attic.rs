//! What workers may still look at although it is replaced: kept until they do not, so that none of them frees it.

use std::fmt;
use std::sync::Arc;

/// Something that was replaced.
type Old = Arc<dyn Send + Sync>;

/// See the module.
#[derive(Default)]
pub struct Attic(Vec<Old>);

impl Attic {
    /// Keeps what nobody new can come by any more, and frees what nobody looks at.
    pub fn keep(&mut self, old: Old) {
        self.0.push(old);
        self.clear();
    }

    /// Frees what nobody looks at.
    pub fn clear(&mut self) {
        self.0.retain(|old| Arc::strong_count(old) > 1);
    }
}

impl fmt::Debug for Attic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Attic({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_looks_at_is_kept_until_they_do_not() {
        let (mut attic, seen) = (Attic::default(), Arc::new(1));
        attic.keep(seen.clone());
        attic.keep(Arc::new(2));
        assert_eq!(attic.0.len(), 1);
        drop(seen);
        attic.clear();
        assert!(attic.0.is_empty());
    }
}
