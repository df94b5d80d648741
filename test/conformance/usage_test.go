package conformance_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/api"
	"sallyport/internal/testkit"
)

const (
	// meteredPages is the memory of the metered module, which does not grow.
	meteredPages = 32
	pageBytes    = 64 << 10
	// meteredBefore and meteredAfter are around the event in the result of the metered module.
	meteredBefore, meteredAfter = `{"reply":`, `}`
	meteredLine                 = "0123456789"
)

// meteredModule replies with the event as it got it, which it finds at no other place than its memory, after a line of log
// and so many turns of a loop.
func meteredModule(turns int32) []byte {
	const (
		line = len(meteredBefore) // where its text is, and then the event
		data = 1024
	)
	section := func(id byte, body ...byte) []byte {
		return slices.Concat([]byte{id}, binary.AppendUvarint(nil, uint64(len(body))), body)
	}
	name := func(s string) []byte { return append([]byte{byte(len(s))}, s...) }
	imported := func(s string, kind byte) []byte { return slices.Concat(name("sallyport"), name(s), []byte{0, kind}) }
	number := func(n int32) []byte { // i32.const
		b := []byte{0x41}
		for {
			part := byte(n & 0x7f)
			n >>= 7
			if n == 0 && part&0x40 == 0 || n == -1 && part&0x40 != 0 {
				return append(b, part)
			}
			b = append(b, part|0x80)
		}
	}
	const getSize, setSize = "\x20\x00", "\x21\x00" // of local 0
	write := func(at int32, size []byte) []byte { return slices.Concat(number(at), size, []byte("\x10\x02\x1a")) }
	code := slices.Concat(
		[]byte("\x01\x02\x7f"),                                                              // two locals: the event's size and the turns left
		number(1), number(int32(line)), number(int32(len(meteredLine))), []byte("\x10\x03"), // log(1, …)
		number(turns), []byte("\x21\x01\x03\x40"), // loop
		[]byte("\x20\x01"), number(1), []byte("\x6b\x22\x01\x0d\x00\x0b"), // turns-1, br_if 0, end
		[]byte("\x10\x00"+setSize),
		number(data), []byte(getSize+"\x10\x01\x1a"), // event_read
		write(0, number(int32(len(meteredBefore)))), write(data, []byte(getSize)), write(512, number(int32(len(meteredAfter)))),
		number(0), []byte{0x0b})
	segment := func(at int32, text string) []byte {
		return slices.Concat([]byte{0}, number(at), []byte{0x0b}, name(text))
	}
	return slices.Concat([]byte("\x00asm\x01\x00\x00\x00"),
		section(1, []byte("\x03\x60\x00\x01\x7f\x60\x02\x7f\x7f\x01\x7f\x60\x03\x7f\x7f\x7f\x00")...), // ()->i32, (i32,i32)->i32, (i32,i32,i32)->()
		section(2, slices.Concat([]byte{4}, imported("event_size", 0), imported("event_read", 1), imported("result_write", 1), imported("log", 2))...),
		section(3, 1, 0),
		section(5, 1, 0, meteredPages),
		section(7, slices.Concat([]byte{2}, name("memory"), []byte{2, 0}, name("sallyport_handle"), []byte{0, 4})...),
		section(10, slices.Concat([]byte{1}, binary.AppendUvarint(nil, uint64(len(code))), code)...),
		section(11, slices.Concat([]byte{2}, segment(0, meteredBefore+meteredLine), segment(512, meteredAfter))...))
}

// metered is an app whose functions use what is known.
func metered() *api.Bundle {
	const manifest = `name = "metered"
[functions.echo]
source = "echo.wasm"
[functions.spins]
source = "spins.wasm"
timeout = "60s"
[functions.waits]
source = "waits.js"
[functions.fails]
source = "fails.js"
[subscriptions.fails]
function = "fails"
filter = { type = "metered.fails" }
retry = { attempts = 2, backoff = "10ms" }
`
	return &api.Bundle{Manifest: manifest, Modules: map[string]api.Module{
		"echo":  {Kind: api.ModuleWasm, Code: meteredModule(1)},
		"spins": {Kind: api.ModuleWasm, Code: meteredModule(30_000_000)},
		"waits": {Kind: api.ModuleScript, Code: []byte(`export default () => new Promise((done) => setTimeout(() => done(1), 50))`)},
		"fails": {Kind: api.ModuleScript, Code: []byte(`export default () => { throw new Error("no") }`)},
	}}
}

// TestUsageIsTrue compares what the meter says of a known load with counts that it has no part in: what the client sent, what a module found in
// its memory, how large that memory is, and what the kernel counted for the processes.
func TestUsageIsTrue(t *testing.T) {
	t.Parallel()
	binary := testkit.Binary(t)
	for _, mode := range []string{"server", "dev"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			var s *testkit.Server
			if mode == "server" {
				s = testkit.Start(t, binary, filepath.Join(t.TempDir(), "data"))
				s.Apply(t, metered())
			} else {
				s = testkit.StartDev(t, binary, folderOf(t, metered()))
			}
			m := &meterTest{s: s, binary: binary}
			t.Run("bytes and memory", m.bytesAndMemory)
			t.Run("processor time", m.processor)
			t.Run("time", m.time)
			t.Run("outcomes", m.outcomes)
			t.Run("total", m.total)
		})
	}
}

// folderOf writes an app.
func folderOf(t *testing.T, app *api.Bundle) string {
	t.Helper()
	dir := t.TempDir()
	files := map[string][]byte{"app.toml": []byte(app.Manifest)}
	for name, m := range app.Modules {
		suffix := ".js"
		if m.Kind == api.ModuleWasm {
			suffix = ".wasm"
		}
		files[name+suffix] = m.Code
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// meterTest is a server whose meter is looked at, and how many invocations it made.
type meterTest struct {
	s           *testkit.Server
	binary      string
	invocations int64
}

// invoke calls a function and returns its reply.
func (m *meterTest) invoke(t *testing.T, function string, data []byte) []byte {
	t.Helper()
	a := m.s.MustDo(t, http.MethodPost, "/v1/namespaces/default/functions/"+function+"/invoke", data, "Content-Type", "application/json")
	if a.Status != http.StatusOK {
		t.Fatalf("invoke %s: %d %s", function, a.Status, a.Body)
	}
	m.invocations++
	return a.Body
}

// command runs the program against the server and reads the JSON that it prints.
func (m *meterTest) command(t *testing.T, args ...string) (out api.Usage) {
	t.Helper()
	cmd := exec.Command(m.binary, append(args, "-o", "json")...)
	cmd.Env = append(os.Environ(), "SALLYPORT_SERVER="+m.s.Ready.URL, "SALLYPORT_CA_FILE="+m.s.Ready.CAFile, "SALLYPORT_TOKEN_FILE="+m.s.Ready.TokenFile)
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("sallyport %s: %v", strings.Join(args, " "), err)
	}
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatalf("sallyport %s: %v\n%s", strings.Join(args, " "), err, text)
	}
	return out
}

// stats returns what function stats and usage say of a function, which is to be the same.
func (m *meterTest) stats(t *testing.T, function string) api.UsageLine {
	t.Helper()
	stats := m.command(t, "function", "stats", function, "--since", "1h").Total
	for _, l := range m.command(t, "usage", "--since", "1h").Lines {
		if l.Function != function {
			continue
		}
		l.Function = ""
		if l != stats {
			t.Errorf("usage has %+v, function stats %+v", l, stats)
		}
	}
	return stats
}

// bytesAndMemory: a module that replies with the event it got says how long that was.
func (m *meterTest) bytesAndMemory(t *testing.T) {
	const times = 20
	var in, out int64
	for n := range times {
		data := fmt.Appendf(nil, `{"n":%d,"text":%q}`, n, strings.Repeat("x", 100*n))
		reply := m.invoke(t, "echo", data)
		if !bytes.Contains(reply, data) {
			t.Fatalf("the reply %s does not hold the data %s", reply, data)
		}
		in += int64(len(reply))
		out += int64(len(meteredBefore) + len(reply) + len(meteredAfter) + len(meteredLine))
	}
	got := m.stats(t, "echo")
	if got.Invocations != times || got.Done != times || got.Failed+got.Dead != 0 {
		t.Errorf("usage counts %+v; want %d invocations, all done", got, times)
	}
	if got.Cold != 1 {
		t.Errorf("%d of %d invocations one after the other made an instance, want 1", got.Cold, times)
	}
	if got.BytesIn != in || got.BytesOut != out {
		t.Errorf("usage counts %d bytes in and %d out, want %d and %d", got.BytesIn, got.BytesOut, in, out)
	}
	if got.MemoryPeak != meteredPages*pageBytes {
		t.Errorf("the peak is %d bytes, want those of the module's memory, %d", got.MemoryPeak, meteredPages*pageBytes)
	}
	if want := got.Wall * meteredPages * pageBytes / 1e9; want == 0 || math.Abs(got.GBSeconds/want-1) > 1e-6 {
		t.Errorf("%v GB-seconds, want %v: the module's memory for %v s", got.GBSeconds, want, got.Wall)
	}
}

// processor: the kernel counts the processor time of the server with all of its processes. What a function took is within it, and most of it
// when it did little else.
func (m *meterTest) processor(t *testing.T) {
	const warm, times = 4, 12
	for range warm { // behind the second wall, its worker is another one from the third on
		m.invoke(t, "spins", []byte(`1`))
	}
	metered, counted := m.stats(t, "spins").CPU, processTime(t, m.s.PID())
	for range times {
		m.invoke(t, "spins", []byte(`1`))
	}
	metered, counted = m.stats(t, "spins").CPU-metered, processTime(t, m.s.PID())-counted
	const ticks = 0.05 // seconds; the kernel says hundredths, of a few processes
	if metered > counted+ticks || metered < counted/2 {
		t.Errorf("usage counts %.3f s of processor time, the kernel %.3f s for all that the server does", metered, counted)
	}
	if got := m.stats(t, "spins"); got.Invocations != warm+times || got.CPU > got.Wall {
		t.Errorf("usage counts %+v; want %d invocations that took no more processor time than time", got, warm+times)
	}
}

// time: a function that waits takes as long as it waits and no processor; all calls of it take no longer than the test that made them.
func (m *meterTest) time(t *testing.T) {
	const times, each = 10, 0.050
	began := time.Now()
	for range times {
		m.invoke(t, "waits", []byte(`1`))
	}
	elapsed := time.Since(began).Seconds()
	got := m.stats(t, "waits")
	if got.Invocations != times || got.Wall < times*each || got.Wall > elapsed {
		t.Errorf("usage counts %d invocations in %.3f s; want %d of at least %.3f s each, in less than the %.3f s of the test", got.Invocations, got.Wall, times, each, elapsed)
	}
	if got.CPU <= 0 || got.CPU > got.Wall {
		t.Errorf("%.3f s of processor time in %.3f s", got.CPU, got.Wall)
	}
	if got.GBSeconds <= 0 || got.GBSeconds > float64(got.MemoryPeak)/1e9*got.Wall*(1+1e-6) {
		t.Errorf("%v GB-seconds; want some, and at most the peak of %d bytes for %v s", got.GBSeconds, got.MemoryPeak, got.Wall)
	}
}

// outcomes: each attempt of an event that fails is an invocation.
func (m *meterTest) outcomes(t *testing.T) {
	const times = 3
	for n := range times {
		id := fmt.Sprint("fails-", n)
		if a, err := m.s.Publish(t.Context(), "metered.fails", id, []byte(`{}`)); err != nil || a.Status != http.StatusAccepted {
			t.Fatalf("publish: %v %d", err, a.Status)
		}
		e := m.s.Event(t, id, "20s")
		if len(e.Deliveries) != 1 || len(e.Deliveries[0].Attempts) != 2 || e.State != api.StateDead {
			t.Fatalf("the event is %+v; want it dead after 2 attempts", e)
		}
	}
	m.invocations += 2 * times
	if got := m.stats(t, "fails"); got.Invocations != 2*times || got.Failed != times || got.Dead != times || got.Done != 0 {
		t.Errorf("usage counts %+v; want %d failed and tried again, and %d dead", got, times, times)
	}
}

// total: the sum of a statement is that of its lines, and of all that the test did.
func (m *meterTest) total(t *testing.T) {
	out := m.command(t, "usage", "--since", "1h", "--by", "function,revision,principal")
	var sum api.UsageLine
	for _, l := range out.Lines {
		sum.Invocations += l.Invocations
		sum.BytesIn += l.BytesIn
		sum.BytesOut += l.BytesOut
		sum.GBSeconds += l.GBSeconds
		sum.CPU += l.CPU
		if l.Revision != 1 || !strings.HasPrefix(l.Principal, "token:") {
			t.Errorf("a line is of revision %d and %q; want 1 and a token", l.Revision, l.Principal)
		}
	}
	got := out.Total
	if got.Invocations != m.invocations || sum.Invocations != m.invocations {
		t.Errorf("%d invocations in all, %d in the lines; want %d", got.Invocations, sum.Invocations, m.invocations)
	}
	if got.BytesIn != sum.BytesIn || got.BytesOut != sum.BytesOut || math.Abs(got.GBSeconds-sum.GBSeconds) > 1e-6 || math.Abs(got.CPU-sum.CPU) > 1e-6 {
		t.Errorf("the total is %+v, the sum of the lines %+v", got, sum)
	}
}

// processTime is the processor time of a process and of those it started, in seconds, as the kernel counts it.
func processTime(t *testing.T, server int) float64 {
	t.Helper()
	list, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	ticks := 0
	for _, file := range list {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended, and its parent has its time
		}
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		const parent, utime, cstime = 1, 11, 14
		if own := filepath.Base(filepath.Dir(file)) == strconv.Itoa(server); len(fields) <= cstime || !own && fields[parent] != strconv.Itoa(server) {
			continue
		}
		for _, text := range fields[utime : cstime+1] {
			n, err := strconv.Atoi(text)
			if err != nil {
				t.Fatal(err)
			}
			ticks += n
		}
	}
	if ticks == 0 {
		t.Fatal("the kernel says nothing of the server")
	}
	const perSecond = 100 // USER_HZ
	return float64(ticks) / perSecond
}
