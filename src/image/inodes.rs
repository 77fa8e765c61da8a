//! Things by inode, of which a layer may have a million: one hash table of places for every list.
#![forbid(unsafe_code)]

use core::hash::BuildHasherDefault;
use std::collections::HashMap;
use std::hash::DefaultHasher;

/// Device and inode number.
pub type Inode = (u64, u64);

/// One `T` for an inode.
#[derive(Debug)]
pub struct Inodes<T> {
    /// Unseeded: inode numbers are given by the kernel, not by the archive.
    places: HashMap<Inode, usize, BuildHasherDefault<DefaultHasher>>,
    list: Vec<T>,
}

impl<T> Default for Inodes<T> {
    fn default() -> Inodes<T> {
        Inodes { places: HashMap::default(), list: Vec::new() }
    }
}

impl<T> Inodes<T> {
    /// What is known of the inode.
    pub fn get(&self, inode: Inode) -> Option<&T> {
        self.list.get(*self.places.get(&inode)?)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, inode: Inode) -> Option<&mut T> {
        self.list.get_mut(*self.places.get(&inode)?)
    }

    /// Replaces what is known of the inode.
    pub fn insert(&mut self, inode: Inode, thing: T) {
        match self.get_mut(inode) {
            Some(known) => *known = thing,
            None => {
                self.places.insert(inode, self.list.len());
                self.list.push(thing);
            }
        }
    }

    /// Nothing is known of the inode any more. What was known stays in memory, unreachable.
    pub fn forget(&mut self, inode: Inode) {
        self.places.remove(&inode);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_last_is_known() {
        let mut inodes = Inodes::default();
        inodes.insert((1, 1), "a");
        inodes.insert((1, 2), "b");
        inodes.insert((1, 1), "c");
        assert_eq!((inodes.get((1, 1)), inodes.get((1, 2)), inodes.get((2, 1))), (Some(&"c"), Some(&"b"), None));
        inodes.forget((1, 1));
        assert_eq!((inodes.get((1, 1)), inodes.get((1, 2))), (None, Some(&"b")));
        inodes.insert((1, 1), "d");
        assert_eq!(inodes.get((1, 1)), Some(&"d"));
    }
}
