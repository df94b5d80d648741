//! The calls that the host offers; design/abi.md says what each does. Outside WebAssembly there is no
//! host, and [`crate::test`] stands in for it.

#[cfg(target_family = "wasm")]
mod imports {
    #[link(wasm_import_module = "sallyport")]
    extern "C" {
        pub fn event_size() -> i32;
        pub fn event_read(to: *mut u8, length: usize) -> i32;
        pub fn result_write(from: *const u8, length: usize) -> i32;
        pub fn log(level: i32, from: *const u8, length: usize);
        pub fn attempt() -> i32;
        pub fn deadline() -> i64;
    }
}

/// What a [`crate::Context`] asks of the server.
pub trait Host {
    fn log(&mut self, level: i32, line: &str);
    fn attempt(&self) -> u32;
    fn deadline_millis(&self) -> i64;
}

/// The server.
#[cfg(target_family = "wasm")]
pub struct Server;

#[cfg(target_family = "wasm")]
impl Host for Server {
    fn log(&mut self, level: i32, line: &str) {
        log(level, line)
    }

    fn attempt(&self) -> u32 {
        // SAFETY: the call takes and returns numbers only.
        unsafe { imports::attempt() as u32 }
    }

    fn deadline_millis(&self) -> i64 {
        // SAFETY: the call takes and returns numbers only.
        unsafe { imports::deadline() }
    }
}

#[cfg(target_family = "wasm")]
pub fn log(level: i32, line: &str) {
    // SAFETY: the host reads that many bytes at that address, which are the line's.
    unsafe { imports::log(level, line.as_ptr(), line.len()) }
}

/// Reads the event.
#[cfg(target_family = "wasm")]
pub fn event() -> Vec<u8> {
    // SAFETY: the host writes at most as many bytes as it is given, to memory that has as many.
    unsafe {
        let mut event = vec![0; imports::event_size() as usize];
        let read = imports::event_read(event.as_mut_ptr(), event.len());
        event.truncate(read as usize);
        event
    }
}

/// Writes to the result.
#[cfg(target_family = "wasm")]
pub fn result(text: &str) {
    // SAFETY: the host reads that many bytes at that address, which are the text's. When the result
    // is over its limit, the invocation ends, whatever is done about it here.
    unsafe { imports::result_write(text.as_ptr(), text.len()) };
}
