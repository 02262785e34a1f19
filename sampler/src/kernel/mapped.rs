//! An array map of the kernel, mapped into our memory.
//!
//! After the attach it needs neither a system call nor a capability.

use std::{
    marker::PhantomData,
    os::fd::AsFd,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use memmap2::{MmapOptions, MmapRaw};

/// `len` elements of `T`, at the kernel's stride of whole 8 bytes.
///
/// Elements are shared with programs that run at the same time: they are read and written word
/// by word, never by reference.
pub struct Mapped<T> {
    memory: MmapRaw,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Copy> Mapped<T> {
    const STRIDE: usize = size_of::<T>().next_multiple_of(8);

    /// Maps the whole array.
    ///
    /// # Errors
    /// What mmap(2) answers; a map of another size than `len` elements is refused by it.
    pub fn new(map: impl AsFd, len: usize) -> std::io::Result<Self> {
        use std::os::fd::AsRawFd as _;
        let memory = MmapOptions::new()
            .len(len * Self::STRIDE)
            .map_raw(map.as_fd().as_raw_fd())?;
        Ok(Self {
            memory,
            len,
            element: PhantomData,
        })
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn at(&self, index: usize) -> *mut T {
        assert!(index < self.len, "element {index} of {}", self.len);
        // SAFETY: inside the mapping, by the assertion.
        unsafe { self.memory.as_mut_ptr().add(index * Self::STRIDE).cast() }
    }

    fn words(&self, index: usize, from: usize, count: usize) -> &[AtomicU64] {
        assert!((from + count) * 8 <= Self::STRIDE, "words {from}+{count}");
        // SAFETY: inside the element; atomics may be shared with other writers, and the
        // mapping lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.at(index).cast::<AtomicU64>().add(from), count) }
    }

    /// Copies an element, each of its words whole.
    pub fn read(&self, index: usize) -> T {
        const { assert!(align_of::<T>() <= 8) };
        let mut value = std::mem::MaybeUninit::<T>::uninit();
        let words = self.words(index, 0, size_of::<T>() / 8);
        for (i, word) in words.iter().enumerate() {
            // SAFETY: `T` is plain data of whole words (asserted by the layouts' own checks).
            unsafe {
                value
                    .as_mut_ptr()
                    .cast::<u64>()
                    .add(i)
                    .write(word.load(Ordering::Relaxed))
            };
        }
        // SAFETY: every word was written, and every bit pattern is a `T`.
        unsafe { value.assume_init() }
    }

    /// Adds `count` words of an element, from word `from` on, to `sum`.
    pub fn add_words(&self, index: usize, from: usize, sum: &mut [u64]) {
        for (word, sum) in self.words(index, from, sum.len()).iter().zip(sum) {
            *sum = sum.wrapping_add(word.load(Ordering::Relaxed));
        }
    }

    /// Writes an element, word by word.
    pub fn write(&self, index: usize, value: &T) {
        let words = self.words(index, 0, size_of::<T>() / 8);
        for (i, word) in words.iter().enumerate() {
            // SAFETY: as in `read`.
            let new = unsafe { std::ptr::from_ref(value).cast::<u64>().add(i).read() };
            word.store(new, Ordering::Relaxed);
        }
        std::sync::atomic::fence(Ordering::SeqCst);
    }

    /// One word of an element, for what both sides change.
    pub fn word(&self, index: usize, byte_offset: usize) -> &AtomicU64 {
        &self.words(index, byte_offset / 8, 1)[0]
    }

    /// One 32-bit word of an element, for what changes while programs run.
    pub fn word32(&self, index: usize, byte_offset: usize) -> &AtomicU32 {
        assert!(byte_offset.is_multiple_of(4) && byte_offset + 4 <= size_of::<T>());
        // SAFETY: as in `words`.
        unsafe {
            &*self
                .at(index)
                .cast::<u8>()
                .add(byte_offset)
                .cast::<AtomicU32>()
        }
    }
}
