//! How much memory the bodies of all requests in hand may take together.
//!
//! A body is kept until nothing can need it any more: another backend may have to be asked, and a reply
//! without usage makes its tokens be counted here. So what bounds it is not the number of requests but this.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ports::Unavailable;

/// Room for bodies; clones share it.
#[derive(Clone, Debug)]
pub struct Room(Arc<Semaphore>);

/// The room of one body, given back when the last of its bytes is dropped.
#[derive(Debug)]
pub struct Taken {
    room: Room,
    permit: Option<OwnedSemaphorePermit>,
}

/// There is none left.
#[derive(Debug, thiserror::Error)]
#[error("the bodies of the requests in hand fill the memory for them")]
struct Full;

const UNIT: usize = 1024;

impl Default for Room {
    /// 256 MiB: two of the largest bodies that the Functions host lets in, or a thousand prompts that fill
    /// a context window.
    fn default() -> Self {
        Self::of(256 * 1024 * 1024)
    }
}

impl Room {
    pub fn of(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes / UNIT)))
    }

    /// For a body that is about to come.
    pub fn begin(&self) -> Taken {
        Taken { room: self.clone(), permit: None }
    }
}

impl Taken {
    /// Takes more, for a body that has so many bytes by now.
    ///
    /// # Errors
    /// When there is not so much.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Unavailable> {
        let taken = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = bytes.div_ceil(UNIT).saturating_sub(taken);
        if more == 0 {
            return Ok(());
        }
        let full = || Unavailable { what: "room for the body", source: Full.into() };
        let more = u32::try_from(more).map_err(|_| full())?;
        let more = Arc::clone(&self.room.0).try_acquire_many_owned(more).map_err(|_| full())?;
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        Ok(())
    }

    /// The body, which now keeps its room.
    pub fn keep(self, body: Bytes) -> Bytes {
        Bytes::from_owner(Kept { body, _taken: self })
    }
}

struct Kept {
    body: Bytes,
    _taken: Taken,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_given_back_with_the_last_of_a_bodys_bytes() {
        let room = Room::of(10 * UNIT);
        let mut taken = room.begin();
        taken.grow(100).unwrap();
        taken.grow(8 * UNIT).unwrap();
        let body = taken.keep(Bytes::from_static(b"a body"));
        let slice = body.slice(2..4);
        drop(body);
        assert!(room.begin().grow(3 * UNIT).is_err());
        room.begin().grow(2 * UNIT).unwrap();
        drop(slice);
        room.begin().grow(10 * UNIT).unwrap();
    }
}
