//! Reads and writes of files that the kernel has, with their memory.
//!
//! Invariant: from `write` or `read` until `completed` says that it is over, nothing touches the memory of an operation, so
//! the pointer that the submission holds stays valid: it points to heap memory that does not move when the slab grows. The
//! operation also holds the file, so its descriptor is open. What is still in flight when this is dropped is never freed.
#![allow(unsafe_code)] // Submissions that point to memory.

use slab::Slab;

use super::request::Request;
use crate::io::{Completion, File, Operation, Sync, Token, file};
use crate::memory::{Aligned, Key};

/// Bytes in one submission: the result is a signed 32-bit number. In tests so few that operations go on.
const BYTES_MAX: usize = if cfg!(test) { 64 << 10 } else { 1 << 30 };

#[derive(Copy, Clone)]
enum Way {
    Write(Sync),
    Read,
}

struct Flight {
    file: File,
    tag: u64,
    at: u64,
    way: Way,
    /// As long as the operation.
    bytes: Aligned,
    /// Bytes that were written or read.
    done: usize,
}

/// The operations on files that are in flight.
#[derive(Default)]
pub(super) struct FileFlights(Slab<Flight>);

/// What follows a completion.
pub(super) enum Next {
    /// A part was done: the rest.
    Again(Request),
    Over(Completion),
}

impl FileFlights {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the bytes over and describes their write.
    pub fn write(&mut self, file: &File, tag: u64, at: u64, bytes: Aligned, sync: Sync) -> Request {
        file::check(at, bytes.len());
        self.begin(Flight { file: file.clone(), tag, at, way: Way::Write(sync), bytes, done: 0 })
    }

    /// Takes the memory over and describes a read of `len` bytes.
    pub fn read(&mut self, file: &File, tag: u64, at: u64, mut into: Aligned, len: usize) -> Request {
        file::check(at, len);
        into.clear();
        into.resize(len);
        self.begin(Flight { file: file.clone(), tag, at, way: Way::Read, bytes: into, done: 0 })
    }

    fn begin(&mut self, flight: Flight) -> Request {
        let index = self.0.insert(flight);
        self.0[index].request(index)
    }

    /// A submission is over.
    pub fn completed(&mut self, flight: Token, result: i32) -> Next {
        let index = flight.key().index as usize;
        let flight = &mut self.0[index];
        let result = match (flight.way, result) {
            (_, count @ 1..) => {
                flight.done += count as usize;
                let is_over = match flight.way {
                    Way::Write(_) => flight.done == flight.bytes.len(),
                    Way::Read => file::is_read(flight.done, flight.bytes.len()),
                };
                if !is_over {
                    return Next::Again(flight.request(index));
                }
                Ok(())
            }
            (Way::Read, 0) => Ok(()),
            // It took nothing and said no reason.
            (Way::Write(_), 0) => Err(libc::EIO),
            (_, error) if error == -libc::EINTR => return Next::Again(flight.request(index)),
            (_, error) => Err(-error),
        };
        let Flight { tag, way, mut bytes, done, .. } = self.0.remove(index);
        Next::Over(match way {
            Way::Write(_) => Completion::Written { tag, bytes, result },
            Way::Read => {
                bytes.truncate(done);
                Completion::FileRead { tag, bytes, result }
            }
        })
    }
}

impl Drop for FileFlights {
    /// The kernel may use what it did not let go of for as long as the process runs.
    fn drop(&mut self) {
        if !self.is_empty() {
            std::mem::forget(std::mem::take(&mut self.0));
        }
    }
}

impl Flight {
    /// What is left to do.
    fn request(&mut self, index: usize) -> Request {
        let at = self.at + self.done as u64;
        let bytes = &mut self.bytes.as_mut_slice()[self.done..];
        let (start, len) = (bytes.as_mut_ptr(), bytes.len().min(BYTES_MAX) as u32);
        let (request, operation) = match self.way {
            Way::Write(sync) => {
                let flags = match sync {
                    Sync::None => 0,
                    Sync::Data => libc::RWF_DSYNC,
                };
                // SAFETY: the bytes are on the heap and belong to the flight, which stays as it is, with its file, until
                // `completed` takes it out: that is when the write is over. A flight that is dropped before leaks both.
                let request = unsafe { Request::write(self.file.descriptor(), start, len, at, flags) };
                // A flush through the page cache would block the shard.
                let blocks = sync == Sync::Data && !self.file.is_direct();
                (if blocks { request.elsewhere() } else { request }, Operation::WriteFile)
            }
            // SAFETY: the memory is on the heap and belongs to the flight; nobody looks at it, and the file stays open, until
            // `completed` takes the flight out: that is when the read is over. A flight that is dropped before leaks both.
            Way::Read => {
                (unsafe { Request::read(self.file.descriptor(), start, len, at) }, Operation::ReadFile)
            }
        };
        request.user_data(Token::new(Key { index: index as u32, generation: 0 }).user_data(operation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::SECTOR;

    fn file() -> File {
        File::new(std::fs::File::open("/dev/null").unwrap().into(), true)
    }

    fn sectors(count: usize) -> Aligned {
        Aligned::from(&vec![7; count * SECTOR][..])
    }

    /// The first one.
    fn flight() -> Token {
        Token::new(Key { index: 0, generation: 0 })
    }

    #[test]
    fn a_short_operation_goes_on_and_ends_once() {
        let mut flights = FileFlights::default();
        let _request = flights.write(&file(), 9, 0, sectors(3), Sync::Data);
        // The kernel may also do less than a sector at a time.
        for count in [512, 4096, -libc::EINTR, 4096] {
            assert!(matches!(flights.completed(flight(), count), Next::Again(_)), "{count}");
        }
        let left = 3 * SECTOR as i32 - 512 - 2 * 4096;
        match flights.completed(flight(), left) {
            Next::Over(Completion::Written { tag: 9, bytes, result: Ok(()) }) => assert!(bytes == sectors(3)),
            _ => panic!("it is over"),
        }
        assert!(flights.is_empty());
        // A read that ends within a sector is at the end of the file; one that ends between two may not be.
        let _request = flights.read(&file(), 9, 0, Aligned::new(), 3 * SECTOR);
        assert!(matches!(flights.completed(flight(), SECTOR as i32), Next::Again(_)));
        match flights.completed(flight(), 100) {
            Next::Over(Completion::FileRead { bytes, result: Ok(()), .. }) => {
                assert_eq!(bytes.len(), SECTOR + 100);
            }
            _ => panic!("it is over"),
        }
    }

    #[test]
    fn a_write_that_takes_nothing_has_failed() {
        let mut flights = FileFlights::default();
        for (result, errno) in [(0, libc::EIO), (-libc::ENOSPC, libc::ENOSPC)] {
            let _request = flights.write(&file(), 1, 0, sectors(1), Sync::None);
            match flights.completed(flight(), result) {
                Next::Over(Completion::Written { result, .. }) => assert_eq!(result, Err(errno)),
                _ => panic!("it is over"),
            }
        }
    }

    #[test]
    fn what_is_in_flight_at_the_end_is_never_freed() {
        for ended in [true, false] {
            let (mut flights, file) = (FileFlights::default(), file());
            let _unsent = flights.write(&file, 1, 0, sectors(1), Sync::None);
            if ended {
                assert!(matches!(flights.completed(flight(), SECTOR as i32), Next::Over(_)));
            }
            drop(flights);
            assert_eq!(file.names() == 1, ended, "the flight has the file as long as its memory");
        }
    }
}
