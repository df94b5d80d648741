// Package readme_test runs the commands of README.md as a reader would, in order and by copy and
// paste, and fails when one of them fails, or when there is one that it does not know how to run.
package readme_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sallyport/internal/testkit"
)

// blocks returns the shell blocks of the README.
func blocks(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		out = append(out, strings.TrimSpace(strings.ReplaceAll(m[1], "\\\n", " ")))
	}
	return out
}

// reader is somebody who follows the README in a terminal.
type reader struct {
	t   *testing.T
	dir string
	env []string
}

// run runs one command line and returns what it printed. An error is the test's, unless fails is set.
func (r *reader) run(line string, fails bool) string {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 2*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", line)
	c.Dir, c.Env = r.dir, r.env
	out, err := c.CombinedOutput()
	if (err != nil) != fails {
		r.t.Fatalf("%s\n%v\n%s", line, err, out)
	}
	return string(out)
}

// background starts a command that goes on, and waits until ready exists.
func (r *reader) background(line, ready string) {
	r.t.Helper()
	c := exec.Command("bash", "-c", "exec "+line)
	c.Dir, c.Env = r.dir, r.env
	log, err := os.Create(filepath.Join(r.t.TempDir(), "log"))
	if err != nil {
		r.t.Fatal(err)
	}
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		r.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = c.Wait(); close(ended) }()
	r.t.Cleanup(func() {
		_ = c.Process.Signal(os.Interrupt)
		select {
		case <-ended:
		case <-time.After(time.Minute):
			r.t.Errorf("%s did not end within a minute of Ctrl-C", line)
			_ = c.Process.Kill()
			<-ended
		}
		_ = log.Close()
	})
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for {
		if _, err := os.Stat(filepath.Join(r.dir, ready)); err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ended:
			text, _ := os.ReadFile(log.Name())
			r.t.Fatalf("%s ended\n%s", line, text)
		case <-limit:
			text, _ := os.ReadFile(log.Name())
			r.t.Fatalf("%s is not ready\n%s", line, text)
		}
	}
}

func TestREADME(t *testing.T) {
	binary := testkit.Binary(t)
	r := &reader{t: t, dir: t.TempDir(), env: append(os.Environ(), "PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"))}
	ran := 0
	for _, block := range blocks(t) {
		for _, line := range strings.Split(block, "\n") {
			ran++
			switch {
			case line == "make run":
				t.Run("make run", func(t *testing.T) {
					sub := &reader{t: t, dir: "../..", env: append(os.Environ(), "ONCE=1", "LISTEN=127.0.0.1:0")}
					if out := sub.run(line, false); !strings.Contains(out, "All of it is as it should be.") {
						t.Errorf("make run printed\n%s", out)
					}
				})
			case line == "make test": // is what runs this test
			case line == "make build", strings.HasPrefix(line, "export PATH="), line == `cd "$(mktemp -d)"`:
				// Done above: the binary is built, its folder in the path, the folder new.
			case line == "cd hello":
				r.dir = filepath.Join(r.dir, "hello")
			case line == "sallyport dev":
				r.background(line+" --listen 127.0.0.1:0", ".sallyport/ready.json")
				r.awaitApp()
			case strings.HasPrefix(line, "sallyport server"):
				r = &reader{t: t, dir: t.TempDir(), env: append(r.env, "SALLYPORT_SERVER=https://127.0.0.1:8600",
					"SALLYPORT_CA_FILE=sallyport-data/tls/ca.crt", "SALLYPORT_TOKEN_FILE=sallyport-data/operator.token")}
				r.background(line+" --ready-file ready.json", "ready.json")
			case strings.HasPrefix(line, "curl "):
				if out := r.run(line, false); !strings.Contains(out, `"receipts":[{"id":"1"`) {
					t.Errorf("%s\nprinted %s", line, out)
				}
			case strings.Contains(line, `"name":""`):
				if out := r.run(line, true); !strings.Contains(out, "event.schema_violation") || !strings.Contains(out, "/name") {
					t.Errorf("%s\nprinted %s", line, out)
				}
			case strings.HasPrefix(line, "sallyport "), strings.Contains(line, "| sallyport "):
				r.run(line, false)
			default:
				t.Errorf("the README has a command that this test does not know: %s", line)
			}
		}
	}
	if ran < 12 {
		t.Errorf("only %d commands found: the gate is looking in the wrong place", ran)
	}
}

// awaitApp waits until dev has applied the app: the ready file comes before that.
func (r *reader) awaitApp() {
	r.t.Helper()
	limit := time.Now().Add(time.Minute)
	for time.Now().Before(limit) {
		if strings.Contains(r.run("sallyport function list", false), "hello") {
			return
		}
	}
	r.t.Fatal("dev did not apply the app")
}
