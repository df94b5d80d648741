package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/api"
	"sallyport/internal/cell"
	"sallyport/internal/cell/wall"
)

// workerdVersion is the peer that JavaScript is compared with: the runtime of Cloudflare Workers, as its
// npm package (Apache-2.0) brings it. design/dependencies.md lists it.
const workerdVersion = "1.20261117.1"

// peerClients is how many connections, or invocations at a time, there are in this measure. More would
// only have a fresh isolate each take gigabytes.
const peerClients = 8

// workerdForms are the ways in which workerd is run. All are the same handler over HTTP without TLS.
var workerdForms = [...]struct{ name, worker string }{
	{"HTTP alone, the body is read", "alone"},
	{"one isolate for all requests", "shared"},
	{"a fresh isolate a request", "fresh"},
}

// workerdConfig has one worker of three listen. The handler is the script that our function has.
const workerdConfig = `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [ (name = "main", worker = .%s) ],
  sockets = [ (name = "http", address = "127.0.0.1:0", http = (), service = "main") ]
);
const alone :Workerd.Worker = (modules = [ (name = "alone", esModule = embed "alone.js") ], compatibilityDate = "2026-01-01");
const shared :Workerd.Worker = (
  modules = [ (name = "worker.js", esModule = embed "worker.js"), (name = "handler.js", esModule = embed "handler.js") ],
  compatibilityDate = "2026-01-01"
);
const fresh :Workerd.Worker = (
  modules = [
    (name = "fresh", esModule = embed "fresh.js"),
    (name = "worker", text = embed "worker.js"), (name = "handler", text = embed "handler.js")
  ],
  compatibilityDate = "2026-01-01", compatibilityFlags = ["experimental"], bindings = [ (name = "LOADER", workerLoader = ()) ]
);
`

// The scripts of workerdConfig, but for the handler.
const (
	aloneWorker = `export default { async fetch(request) {
	await request.text()
	return new Response("{}", { headers: { "content-type": "application/json" } })
} }
`
	sharedWorker = `import handle from "./handler.js"
export default { async fetch(request) { return Response.json(handle({ data: await request.json() })) } }
`
	freshWorker = `import worker from "worker"
import handler from "handler"
let n = 0
export default { async fetch(request, env) {
	const isolate = env.LOADER.get("isolate-" + n++, () => ({
		compatibilityDate: "2026-01-01", mainModule: "worker.js", modules: { "worker.js": worker, "handler.js": handler },
	}))
	return isolate.getEntrypoint().fetch(request)
} }
`
)

// installWorkerd returns the program: the one given, or what npm installs into the folder of the run.
func installWorkerd(ctx context.Context, o options) (string, error) {
	if o.workerd != "" {
		return o.workerd, nil
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		return "", errors.New("npm is not installed, and -workerd is not given")
	}
	dir := filepath.Join(o.dir, "workerd-npm")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	// The program is a file of the package; no script of it has to run.
	install := exec.CommandContext(ctx, npm, "install", "--prefix", dir, "--no-audit", "--no-fund", "--no-save", "--ignore-scripts", "workerd@"+workerdVersion)
	if out, err := install.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm install workerd@%s: %w: %s", workerdVersion, err, lastLine(out))
	}
	found, err := filepath.Glob(filepath.Join(dir, "node_modules", "@cloudflare", "workerd-*", "bin", "workerd"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("npm installed %d programs of workerd, want 1", len(found))
	}
	return found[0], nil
}

// startWorkerd runs one form, and returns where it listens.
func startWorkerd(ctx context.Context, o options, program, worker string) (*process, *target, error) {
	dir, err := os.MkdirTemp(o.dir, "workerd-")
	if err != nil {
		return nil, nil, err
	}
	for name, text := range map[string]string{
		"config.capnp": fmt.Sprintf(workerdConfig, worker), "alone.js": aloneWorker, "worker.js": sharedWorker,
		"fresh.js": freshWorker, "handler.js": benchScript,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, nil, err
		}
	}
	p, err := start(ctx, oneCPU, "", program, "serve", "--experimental", "--control-fd=1", filepath.Join(dir, "config.capnp"))
	if err != nil {
		return nil, nil, err
	}
	var listening struct {
		Event  string `json:"event"`
		Socket string `json:"socket"`
		Port   int    `json:"port"`
	}
	if err := json.Unmarshal(p.ready, &listening); err != nil || listening.Port == 0 {
		return nil, nil, errors.Join(fmt.Errorf("workerd said %q when it was ready", p.ready), err, p.stop())
	}
	return p, &target{address: net.JoinHostPort("127.0.0.1", strconv.Itoa(listening.Port)), path: "/"}, nil
}

// contender is a server that a load is driven at, again and again.
type contender struct {
	name    string
	process *process
	load    load
	samples []sample
}

// measureWorkerd is a JavaScript handler that parses an order and answers with another, in workerd and
// here: CPU time of all processes, a request or an invocation.
func measureWorkerd(ctx context.Context, o options, r *report, stderr io.Writer) (err error) {
	const measure = "(workerd) JavaScript, JSON"
	program, err := installWorkerd(ctx, o)
	if err != nil {
		fmt.Fprintln(stderr, "  workerd is NOT MEASURED:", err)
		for _, form := range workerdForms {
			r.missing(measure, "workerd "+workerdVersion+", "+form.name, err.Error())
		}
	}
	var servers []*contender
	defer func() {
		for _, s := range servers {
			err = errors.Join(err, s.process.stop())
		}
	}()
	for _, form := range workerdForms {
		if program == "" {
			break
		}
		p, t, err := startWorkerd(ctx, o, program, form.worker)
		if err != nil {
			return err
		}
		servers = append(servers, &contender{name: "workerd, " + form.name, process: p, load: orders(o, t)})
	}
	for _, wall := range []string{"off", "on"} {
		s, err := startWalled(ctx, o, "workerd", wall)
		if err != nil {
			return err
		}
		ours := &contender{name: "sallyport, durable invocation over HTTPS, second wall " + wall, process: s.process}
		servers = append(servers, ours)
		c, err := s.apply(ctx, "f.js", api.Module{Kind: api.ModuleScript, Code: []byte(benchScript)})
		if err != nil {
			return err
		}
		c.Close()
		t, err := newTarget(s.ready.URL, s.ready.CAFile, s.ready.TokenFile, "/v1/namespaces/default/functions/f/invoke")
		if err != nil {
			return err
		}
		ours.load = orders(o, t)
	}
	var near, far []sample
	for round := range o.rounds + 1 {
		for _, s := range servers {
			got, err := s.load.run(ctx, s.process)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			if got.Failed > 0 {
				return fmt.Errorf("%s: %d of %d requests failed", s.name, got.Failed, got.Failed+got.Events)
			}
			if round > 0 { // the first round warms up
				s.samples = append(s.samples, got)
			}
		}
		pair, err := invocationsAlone(ctx, o)
		if err != nil {
			return err
		}
		if round > 0 {
			near, far = append(near, pair[0]), append(far, pair[1])
		}
	}
	return reportWorkerd(r, measure, servers, near, far)
}

// orders is the load of this measure.
func orders(o options, t *target) load {
	body := eventBody()
	return load{target: t, clients: peerClients, duration: o.duration, want: 200, request: func(int64) (string, []byte, int) {
		return "Content-Type: application/json\r\n", body, 1
	}}
}

// reportWorkerd enters the rows, and compares what isolates an event: a fresh isolate and an invocation.
func reportWorkerd(r *report, measure string, servers []*contender, near, far []sample) error {
	for _, s := range servers {
		r.add(measure, s.name, s.samples)
	}
	r.add(measure, "sallyport, invocation in the server's process", near)
	r.add(measure, "sallyport, invocation behind the second wall", far)
	if len(servers) < len(workerdForms)+2 {
		return nil
	}
	alone, shared, fresh := servers[0].samples, servers[1].samples, servers[2].samples
	off, on := servers[3].samples, servers[4].samples
	isolate := func(ours []sample) float64 {
		var v []float64
		for i := range ours {
			v = append(v, (cpuPerEvent(fresh[i])-cpuPerEvent(alone[i]))/cpuPerEvent(ours[i]))
		}
		return median(v)
	}
	const taken = "CPU; workerd's HTTP is taken off"
	r.compare(measure, "fresh isolate : invocation in process", isolate(near), bar{}, taken)
	r.compare(measure, "fresh isolate : invocation behind the second wall", isolate(far), bar{}, taken)
	const unlike = "CPU; theirs with HTTP, ours without"
	r.compare(measure, "invocation in process : a request of the shared isolate", pairRatio(shared, near, cpuPerEvent), atMost(1), unlike)
	r.compare(measure, "invocation behind the second wall : a request of the shared isolate", pairRatio(shared, far, cpuPerEvent), atMost(1), unlike)
	// What the handler alone takes there is less than the noise of a request, so whole requests are compared.
	const whole = "CPU of a request; there nothing is isolated, encrypted, authorised or stored"
	r.compare(measure, "shared isolate : durable invocation, second wall off", pairRatio(off, shared, cpuPerEvent), bar{}, whole)
	r.compare(measure, "shared isolate : durable invocation, second wall on", pairRatio(on, shared, cpuPerEvent), bar{}, whole)
	return nil
}

// invocationsAlone has a process of its own invoke the function, first in itself, then behind a wall.
func invocationsAlone(ctx context.Context, o options) ([2]sample, error) {
	var pair [2]sample
	err := rolePinned(ctx, &pair, "invocations", o.binary, o.duration.String())
	return pair, err
}

// rolePinned runs a role of this program on the server's processor and reads what it writes.
func rolePinned(ctx context.Context, to any, role string, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, append([]string{"pinned", strconv.Itoa(serverCPU), self, role}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w", role, err)
	}
	if err := json.Unmarshal(out, to, nanoseconds()); err != nil {
		return fmt.Errorf("%s: read what was measured: %w", role, err)
	}
	return nil
}

// invoker is a function, in this process or in a worker.
type invoker interface {
	Invoke(ctx context.Context, in cell.Input) (cell.Result, cell.Usage, error)
}

// runInvocations is the process that invocationsAlone starts.
func runInvocations(ctx context.Context, args []string) (err error) {
	if len(args) != 2 {
		return errors.New("usage: bench invocations SALLYPORT DURATION")
	}
	duration, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	spec := cell.Spec{Name: "f.js", Kind: api.ModuleScript, Code: []byte(benchScript)}
	direct, err := cell.New(ctx, cell.Default())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, direct.Close(ctx)) }()
	near, err := direct.Load(ctx, spec, cell.DefaultLimits())
	if err != nil {
		return err
	}
	cfg := wall.Default("cell-worker")
	cfg.Program = args[0]
	walled, err := wall.New(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, walled.Close(ctx)) }()
	far, err := walled.Load(ctx, spec, cell.DefaultLimits())
	if err != nil {
		return err
	}
	var pair [2]sample
	for i, f := range []invoker{near, far} {
		if _, err := invokeFor(ctx, f, duration/10); err != nil { // so that instances are there
			return err
		}
		if pair[i], err = invokeFor(ctx, f, duration); err != nil {
			return err
		}
	}
	return json.MarshalWrite(os.Stdout, pair, nanoseconds())
}

// lastLine returns the last line of what a program said.
func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}
