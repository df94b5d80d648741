package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/api"
	"sallyport/client"
)

// attack is one way to hurt whoever shares a server with it: a function that is called again and again, or a
// module that is deployed again and again.
type attack struct {
	name, what string
	module     api.Module
	// deploys makes the n-th module to deploy; then nothing is called.
	deploys func(guest []byte, n int) (api.Module, error)
	clients int
	// flood has calls follow each other without a pause.
	flood bool
	more  string // lines of the function's table in the manifest
	// want are beginnings of what it may come to.
	want []string
}

const (
	attackers = 4
	// deployers are as many as the server takes at the same time; more are told to come later.
	deployers = 2
	// attackRate bounds the calls a second of all clients of an attack: what is measured is what a function does, and not how many
	// calls the intake takes, which the reference shows.
	attackRate = 100
	// waiters is how many calls wait for a grant at a time.
	waiters = 100
	// attackTimeout is that of every hostile function.
	attackTimeout = "1s"
)

// attacks are all kinds. What is in the list of the issue in one word is here in the forms that differ for the server.
func attacks() []attack {
	calls := func(name, what string, m api.Module, more string, want ...string) attack {
		return attack{name: name, what: what, module: m, clients: attackers, more: more, want: want}
	}
	return []attack{
		{name: "calls", what: "as many calls of another trivial function as 4 clients can make", module: scriptOf(lightScript), clients: attackers, flood: true, want: []string{"done"}},
		calls("loop-js", "an endless loop, JavaScript", scriptOf(endlessScript), "", "cell.timeout"),
		calls("loop-wasm", "an endless loop, C", moduleOf(endlessC), "", "cell.timeout"),
		calls("recursion-js", "deep recursion, JavaScript", scriptOf("export default () => { const f = () => f() + 1; return f() }"), "", "cell."),
		calls("recursion-wasm", "deep recursion, WebAssembly", moduleOf(assembled(1, false, false, 0x10, 0x00)), "", "cell."),
		calls("memory-js", "a memory bomb, JavaScript", scriptOf("export default () => { const all = []; for (;;) all.push(new Uint8Array(1 << 20).fill(1)) }"), "", "cell."),
		calls("memory-wasm", "62 MiB written and lost, WebAssembly", moduleOf(filling()), "", "cell."),
		calls("memory-grow", "memory grown to its limit, WebAssembly", moduleOf(assembled(1, false, false, growing(0x40, 0x00)...)), "", "cell."),
		calls("table-grow", "a table grown to its limit, WebAssembly", moduleOf(assembled(1, true, false, growing(0xfc, 0x0f, 0x00)...)), "", "cell."),
		calls("regexp", "a regular-expression bomb", scriptOf(`export default () => /^(a+)+$/.test("a".repeat(50) + "!")`), "", "cell.timeout"),
		calls("json", "a JSON bomb", scriptOf(`export default () => JSON.parse("[" + "0,".repeat(1e7) + "0]")`), "", "cell."),
		calls("log", "60 KB of log an event", scriptOf(`export default (e, ctx) => { for (let i = 0; i < 6; i++) ctx.log("x".repeat(10000)) }`), "", "done"),
		calls("output", "a reply of 1 MB", scriptOf(`export default () => "x".repeat(1e6)`), "", "done"),
		calls("emit", "100 events an event, whatever is still pending", scriptOf(`export default () => Array.from({ length: 100 }, (_, i) => ({ type: "bench.emitted", data: i }))`),
			"grants.out.publish = [\"bench.emitted\"]\n", "done", "ingress.", "namespace.", "eventlog."),
		{
			name: "wait", what: "100 calls that wait for a grant for ever", clients: waiters, want: []string{"cell.", "grant."},
			module: scriptOf(`export default async (e, ctx) => { const r = await ctx.grants.web.fetch({}); return r.status }`),
		},
		{name: "deploy-go", what: "Go modules of 3 MB deployed, each another", clients: deployers, deploys: hugeModule, want: []string{"done"}},
		{name: "deploy-start", what: "modules deployed whose start function never ends", clients: deployers, deploys: startBomb, want: []string{"cell."}},
		{name: "deploy-js", what: "scripts deployed that never end", clients: deployers, deploys: scriptStartBomb, want: []string{"cell."}},
	}
}

// chosenAttacks returns the attacks of these names, in their order; all for none.
func chosenAttacks(names string) ([]attack, error) {
	all := attacks()
	if names == "" {
		return all, nil
	}
	var out []attack
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(all, func(a attack) bool { return a.name == name })
		if i < 0 {
			return nil, fmt.Errorf("-attacks: there is no attack %q", name)
		}
		out = append(out, all[i])
	}
	return out, nil
}

func scriptOf(code string) api.Module { return api.Module{Kind: api.ModuleScript, Code: []byte(code)} }
func moduleOf(code []byte) api.Module { return api.Module{Kind: api.ModuleWasm, Code: code} }

// assembled is a reactor with so many pages of memory and a table of functions if wanted, whose handler has this code before an
// unreachable instruction. It has a start function that never ends if wanted.
func assembled(pages int, table, start bool, code ...byte) []byte {
	section := func(id byte, body ...byte) []byte {
		return slices.Concat([]byte{id}, binary.AppendUvarint(nil, uint64(len(body))), body)
	}
	body := func(code ...byte) []byte {
		return slices.Concat(binary.AppendUvarint(nil, uint64(len(code)+2)), []byte{0}, code, []byte{0x0b})
	}
	out := slices.Concat([]byte("\x00asm\x01\x00\x00\x00"),
		section(1, 2, 0x60, 0, 1, 0x7f, 0x60, 0, 0), // () -> i32 and () -> ()
		section(3, 2, 0, 1))
	if table {
		out = append(out, section(4, 1, 0x70, 0, 1)...)
	}
	out = append(out, section(5, slices.Concat([]byte{1, 0}, binary.AppendUvarint(nil, uint64(pages)))...)...)
	out = append(out, section(7, []byte("\x02\x06memory\x02\x00\x10sallyport_handle\x00\x00")...)...)
	if start {
		out = append(out, section(8, 1)...)
	}
	const unreachable = 0x00
	return append(out, section(10, slices.Concat([]byte{2}, body(append(code, unreachable)...), body(0x03, 0x40, 0x0c, 0, 0x0b))...)...) // loop br 0 end
}

// growing grows a memory or a table with the instruction given until that is refused.
func growing(grow ...byte) []byte {
	by := []byte{0x41, 16} // i32.const 16
	if grow[0] == 0xfc {
		by = []byte{0xd0, 0x70, 0x41, 0xe8, 0x07} // ref.null func, i32.const 1000
	}
	return slices.Concat([]byte{0x03, 0x40}, by, grow, []byte{0x41, 0x7f, 0x47, 0x0d, 0, 0x0b}) // loop … i32.const -1, i32.ne, br_if 0, end
}

// filling writes all of a memory that is nearly as large as its limit.
func filling() []byte {
	const pages = 62 << 4
	return assembled(pages, false, false, 0x41, 0, 0x41, 7, 0x41, 0x80, 0x80, 0x80, 0x1f, 0xfc, 11, 0) // memory.fill(0, 7, 62 MiB)
}

func hugeModule(guest []byte, n int) (api.Module, error) {
	code, err := variant(guest, n)
	return moduleOf(code), err
}

func startBomb([]byte, int) (api.Module, error) {
	return moduleOf(assembled(1, false, true, 0x41, 0)), nil
}

func scriptStartBomb(_ []byte, n int) (api.Module, error) {
	return scriptOf(fmt.Sprintf("for (;;) {}\nexport default () => %d\n", n)), nil
}

// deploy deploys the neighbour, and every function that an attack calls.
func (b *besides) deploy(ctx context.Context, chosen []attack) error {
	manifest := "name = \"beside\"\n[functions.light]\nsource = \"light.js\"\n[functions.sink]\nsource = \"sink.js\"\n" +
		"[subscriptions.sink]\nfunction = \"sink\"\nfilter = { type = \"bench.emitted\" }\n"
	modules := map[string]api.Module{"light": scriptOf(lightScript), "sink": scriptOf(lightScript)}
	for _, a := range chosen {
		if a.deploys != nil {
			continue
		}
		source := a.name + ".js"
		if a.module.Kind == api.ModuleWasm {
			source = a.name + ".wasm"
		}
		manifest += fmt.Sprintf("[functions.%s]\nsource = %q\ntimeout = %q\n", a.name, source, attackTimeout) + a.more
		if a.name == "wait" {
			manifest += fmt.Sprintf("[functions.wait.grants.web]\nhttp = \"http://%s/\"\nmethods = [\"GET\"]\nprivate = [\"127.0.0.1\"]\nlimits = { rate = 1000000, concurrency = %d }\n", b.silent.Addr(), 2*waiters) // some are still ending while the next begin
		}
		modules[a.name] = a.module
	}
	_, err := b.client.Apply(ctx, &api.Bundle{Manifest: manifest, Modules: modules}, false)
	return err
}

// behind is the role that yields to others by some steps and then becomes the command given.
func behind(_ context.Context, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: bench behind STEPS COMMAND [ARG …]")
	}
	steps, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	runtime.LockOSThread() // the priority is the thread's, and the command has it
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, 0, steps); err != nil {
		return fmt.Errorf("yield by %d steps: %w", steps, err)
	}
	return syscall.Exec(args[1], args[1:], os.Environ())
}

// runAttack is the process of an attack: it says that it has begun, goes on until its standard input ends, waits for the calls
// that are on their way, and writes how often they came to what.
func runAttack(ctx context.Context, args []string) error {
	if len(args) != 6 {
		return errors.New("usage: bench attack NAME ROUND GUEST.wasm URL CA TOKEN")
	}
	chosen, err := chosenAttacks(args[0])
	if err != nil {
		return err
	}
	round, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	guest, err := os.ReadFile(args[2])
	if err != nil {
		return err
	}
	c, err := client.New(client.Config{Server: args[3], CAFile: args[4], TokenFile: args[5], Namespace: "default"})
	if err != nil {
		return err
	}
	defer c.Close()
	var (
		over, calls sync.WaitGroup
		stopped     = make(chan struct{})
		mu          sync.Mutex
		outcomes    = map[string]int{}
		next        atomic.Int64
	)
	const most = 10_000 // calls of a round that deploy
	next.Store(int64(round) * most)
	over.Go(func() {
		defer close(stopped)
		_, _ = io.Copy(io.Discard, os.Stdin) // however it ends, it has ended
	})
	for range chosen[0].clients {
		calls.Go(func() {
			tick := time.NewTicker(time.Second * time.Duration(chosen[0].clients) / attackRate)
			defer tick.Stop()
			for !closed(stopped) && ctx.Err() == nil {
				if !chosen[0].flood {
					<-tick.C // pacing is what it is for
				}
				what := outcome(chosen[0].once(ctx, c, guest, int(next.Add(1))))
				mu.Lock()
				outcomes[what]++
				mu.Unlock()
			}
		})
	}
	fmt.Print("\n")
	calls.Wait()
	over.Wait()
	return json.MarshalWrite(os.Stdout, outcomes)
}

func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// once makes the n-th call or deployment. Deployments take turns with a few names, so that they do not add up.
func (a attack) once(ctx context.Context, c *client.Client, guest []byte, n int) error {
	if a.deploys == nil {
		_, err := c.Invoke(ctx, a.name, []byte("1"), "application/json")
		return err
	}
	m, err := a.deploys(guest, n)
	if err != nil {
		return err
	}
	name := fmt.Sprint("deployed-", n%a.clients)
	bundle := appOf(name, map[string]api.Module{name: m})
	bundle.Manifest += fmt.Sprintf("%s.timeout = %q\n", name, attackTimeout)
	_, err = c.Apply(ctx, bundle, false)
	return err
}

// outcome names what a call came to: done, or the code of its problem.
func outcome(err error) string {
	if err == nil {
		return "done"
	}
	if p, ok := errors.AsType[*client.Problem](err); ok {
		return p.Code
	}
	return "failed: " + err.Error()
}
