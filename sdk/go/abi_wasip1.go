package guest

import (
	"time"
	"unsafe"
)

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

//go:wasmimport sallyport grant_start
func hostGrantStart(grant, op, request, body string) int32

//go:wasmimport sallyport grant_wait
func hostGrantWait(number int32, milliseconds int64) int32

//go:wasmimport sallyport grant_status
func hostGrantStatus(number int32) int32

//go:wasmimport sallyport grant_size
func hostGrantSize(number, part int32) int32

//go:wasmimport sallyport grant_read
func hostGrantRead(number, part, offset int32, to *byte, length int32) int32

//go:wasmimport sallyport grant_end
func hostGrantEnd(number int32)

// server is the host of a reactor.
type server struct{}

func (server) attempt() int               { return int(hostAttempt()) }
func (server) deadline() time.Time        { return time.UnixMilli(hostDeadline()) }
func (server) log(level int, line string) { hostLog(int32(level), line) }

func (server) begin(grant, op string, request, body []byte) int32 {
	return hostGrantStart(grant, op, unsafe.String(unsafe.SliceData(request), len(request)), unsafe.String(unsafe.SliceData(body), len(body)))
}

// The parts of an answer, and the status of a use that failed.
const (
	answerValue = 0
	answerBody  = 1
	useFailed   = 2
)

func (server) wait(number int32) (*Answer, bool) {
	if number <= 0 || hostGrantWait(number, -1) != number {
		return nil, false
	}
	failed := hostGrantStatus(number) == useFailed
	a := &Answer{Value: read(number, answerValue), Body: read(number, answerBody)}
	hostGrantEnd(number)
	return a, failed
}

// read takes a part of an answer.
func read(number, part int32) []byte {
	size := hostGrantSize(number, part)
	if size <= 0 {
		return nil
	}
	b := make([]byte, size)
	return b[:hostGrantRead(number, part, 0, &b[0], size)]
}

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
