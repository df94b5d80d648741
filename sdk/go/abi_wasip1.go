package guest

import "time"

// The calls that the host offers; design/abi.md says what each does.

//go:wasmimport sallyport event_size
func hostEventSize() int32

//go:wasmimport sallyport event_read
func hostEventRead(to *byte, length int32) int32

//go:wasmimport sallyport attempt
func hostAttempt() int32

//go:wasmimport sallyport deadline
func hostDeadline() int64

//go:wasmimport sallyport log
func hostLog(level int32, line string)

//go:wasmimport sallyport result_write
func hostResultWrite(from *byte, length int32) int32

// server is the host of a reactor.
type server struct{}

func (server) attempt() int               { return int(hostAttempt()) }
func (server) deadline() time.Time        { return time.UnixMilli(hostDeadline()) }
func (server) log(level int, line string) { hostLog(int32(level), line) }

// The statuses that sallyport_handle and sallyport_reseed return.
const (
	statusDone   = 0
	statusFailed = 1
)

// enter is the call the host makes for the one event of this instance.
//
//go:wasmexport sallyport_handle
func enter() int32 {
	reseed()
	event := make([]byte, max(1, hostEventSize()))
	event = event[:hostEventRead(&event[0], int32(len(event)))]
	r := handle(handler, server{}, event)
	text := r.encode()
	hostResultWrite(&text[0], int32(len(text)))
	if r.failure != nil {
		return statusFailed
	}
	return statusDone
}
