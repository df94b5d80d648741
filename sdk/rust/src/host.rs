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
        pub fn grant_start(
            grant: *const u8,
            grant_length: usize,
            op: *const u8,
            op_length: usize,
            request: *const u8,
            request_length: usize,
            body: *const u8,
            body_length: usize,
        ) -> i32;
        pub fn grant_wait(number: i32, milliseconds: i64) -> i32;
        pub fn grant_status(number: i32) -> i32;
        pub fn grant_size(number: i32, part: i32) -> i32;
        pub fn grant_read(number: i32, part: i32, offset: u32, to: *mut u8, length: usize) -> i32;
        pub fn grant_end(number: i32);
    }
}

/// What a [`crate::Context`] asks of the server.
pub trait Host {
    fn log(&mut self, level: i32, line: &str);
    fn attempt(&self) -> u32;
    fn deadline_millis(&self) -> i64;
    /// Begins a use of a grant and returns its number.
    fn grant_start(&mut self, grant: &str, op: &str, request: &str, body: &[u8]) -> i32;
    /// Waits for the answer to a use and takes it.
    fn grant_wait(&mut self, number: i32) -> GrantAnswer;
}

/// The answer to a use: whether it was served, its JSON and its bytes.
pub struct GrantAnswer {
    pub served: bool,
    pub json: Vec<u8>,
    pub body: Vec<u8>,
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

    fn grant_start(&mut self, grant: &str, op: &str, request: &str, body: &[u8]) -> i32 {
        // SAFETY: the host reads that many bytes at each address, which are those of what is passed.
        unsafe {
            imports::grant_start(
                grant.as_ptr(),
                grant.len(),
                op.as_ptr(),
                op.len(),
                request.as_ptr(),
                request.len(),
                body.as_ptr(),
                body.len(),
            )
        }
    }

    fn grant_wait(&mut self, number: i32) -> GrantAnswer {
        // SAFETY: the host writes at most as many bytes as it is given, to memory that has as many.
        unsafe {
            imports::grant_wait(number, -1);
            let part = |part: i32| {
                let mut bytes = vec![0; imports::grant_size(number, part).max(0) as usize];
                let read = imports::grant_read(number, part, 0, bytes.as_mut_ptr(), bytes.len());
                bytes.truncate(read.max(0) as usize);
                bytes
            };
            let (json, body) = (part(0), part(1));
            let served = imports::grant_status(number) == 1;
            imports::grant_end(number);
            GrantAnswer { served, json, body }
        }
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
