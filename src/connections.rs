//! What one part of a running job offers to others.
//!
//! In: a type and a name. Out: the one value that the job has for both; whoever asks first makes it. Invariant: two
//! that ask alike get the same value. Not here: what is offered, and who may use it.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// The offers of one running job.
#[derive(Default)]
pub struct Connections(Mutex<HashMap<(TypeId, String), Offer>>);

/// It is of the type that its key has.
type Offer = Arc<dyn Any + Send + Sync>;

impl Connections {
    /// The value of this type and name.
    pub fn get<T: Default + Send + Sync + 'static>(&self, name: &str) -> Arc<T> {
        let mut offers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let offer = offers.entry((TypeId::of::<T>(), name.to_owned())).or_insert_with(|| Arc::new(T::default()));
        offer.clone().downcast::<T>().unwrap_or_default()
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_and_a_name_have_one_value() {
        let connections = Connections::default();
        let first = connections.get::<Mutex<i32>>("a");
        *first.lock().unwrap() = 7;
        assert_eq!(*connections.get::<Mutex<i32>>("a").lock().unwrap(), 7);
        assert_eq!(*connections.get::<Mutex<i32>>("b").lock().unwrap(), 0);
        assert_eq!(*connections.get::<Mutex<i64>>("a").lock().unwrap(), 0);
    }
}
