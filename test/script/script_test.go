// Package script_test drives the real binary as a user does: each testdata/*.txtar is a session at a
// shell, with the files it begins with. Every command of the command line is in one of them, which
// TestEveryCommand holds.
//
// Beside those of testscript, scripts have these commands:
//
//	serve [ARGUMENT…]           start a server, and name it in the environment; arguments that are no flags are files
//	issuer FILE                 start an OpenID Connect issuer, name it in the environment, and write the server.toml that knows it
//	issuer end                  have it end all sessions
//	halt                        end it as systemd does, and see that it ends well
//	exits CODE COMMAND…         run a command that must exit with CODE
//	eventually LIMIT RE COMMAND…  run a command again and again until its output matches RE
//
// SALLYPORT_UPDATE=1 writes what `cmp stderr FILE` got into the scripts.
package script_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"sallyport/internal/testkit"
)

// fewest is how many scripts there are at least: a gate that looks in the wrong place finds none.
const fewest = 12

func scripts(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < fewest {
		t.Fatalf("found %d scripts, want at least %d: looking in the wrong place", len(files), fewest)
	}
	return files
}

func TestScripts(t *testing.T) {
	t.Parallel()
	binary := testkit.Binary(t)
	for _, file := range scripts(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			s := &session{t: t, binary: binary}
			testscript.Run(t, testscript.Params{
				Files: []string{file}, Setup: s.setup, UpdateScripts: os.Getenv("SALLYPORT_UPDATE") != "",
				RequireExplicitExec: true, RequireUniqueNames: true,
				Cmds: map[string]func(*testscript.TestScript, bool, []string){
					"serve": s.serve, "issuer": s.issue, "halt": s.halt, "exits": exits, "eventually": eventually, "upstream": s.upstream,
				},
			})
		})
	}
}

// session is one run of one script.
type session struct {
	t      *testing.T
	binary string
	server *testkit.Server
	issuer *testkit.Issuer
}

func (s *session) setup(env *testscript.Env) error {
	bin := filepath.Join(env.WorkDir, ".bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		return err
	}
	if err := os.Symlink(s.binary, filepath.Join(bin, "sallyport")); err != nil {
		return err
	}
	examples, err := filepath.Abs("../../examples")
	if err != nil {
		return err
	}
	env.Setenv("EXAMPLES", examples)
	env.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	return nil
}

func (s *session) serve(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: serve [ARGUMENT…]")
	}
	for i := range args {
		if !strings.HasPrefix(args[i], "-") {
			args[i] = ts.MkAbs(args[i]) // the server does not run in the script's folder
		}
	}
	server, err := testkit.TryStart(s.t, s.binary, ts.MkAbs("server-data"), args...)
	ts.Check(err)
	s.server = server
	ts.Setenv("SALLYPORT_SERVER", server.Ready.URL)
	ts.Setenv("SALLYPORT_CA_FILE", server.Ready.CAFile)
	ts.Setenv("SALLYPORT_TOKEN_FILE", server.Ready.TokenFile)
}

// issue starts an issuer; its people of the group shop-team develop in the namespace default.
func (s *session) issue(ts *testscript.TestScript, neg bool, args []string) {
	switch {
	case neg || len(args) != 1:
		ts.Fatalf("usage: issuer FILE or issuer end")
	case args[0] == "end":
		s.issuer.EndSessions()
		return
	}
	s.issuer = testkit.NewIssuer(s.t)
	s.issuer.Lifetime(1) // so that each command renews its token
	ts.Setenv("ISSUER", s.issuer.URL)
	ts.Setenv("ISSUER_CA", s.issuer.CAFile)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), fmt.Appendf(nil, `
[[issuers]]
url = %q
audience = [%q]
ca_file = %q
private_network = true
map = [{ claim = "groups", value = "shop-team", role = "developer", namespace = "default" }]
`, s.issuer.URL, testkit.Audience, s.issuer.CAFile), 0o600))
}

func (s *session) halt(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 || s.server == nil {
		ts.Fatalf("usage: halt, after serve")
	}
	took, err := s.server.Stop()
	if err != nil || took > testkit.StopLimit {
		ts.Fatalf("the server ended after %s with %v, want status 0 within %s\n%s", took, err, testkit.StopLimit, s.server.Output())
	}
}

// exits runs a command and holds it to an exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%s: %v", args[1], err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d\nstdout: %s\nstderr: %s", got, want, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

// eventually runs a command until its output matches. LIMIT is when that counts as never: how fast it is depends on the
// machine, and is logged.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: eventually LIMIT RE COMMAND…")
	}
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	want, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	began := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ts.Exec(args[2], args[3:]...)
		out := ts.ReadFile("stdout") + ts.ReadFile("stderr")
		if want.MatchString(out) {
			ts.Logf("matched after %s", time.Since(began).Round(time.Millisecond))
			return
		}
		if time.Since(began) > limit {
			ts.Fatalf("no match for %q within %s; the last run ended with %v:\n%s", args[1], limit, err, out)
		}
		<-tick.C
	}
}

// TestEveryCommand holds that each command of the command line is in a script.
func TestEveryCommand(t *testing.T) {
	t.Parallel()
	var all bytes.Buffer
	for _, file := range scripts(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	commands := leaves(t, testkit.Binary(t), nil)
	const atLeast = 30
	if len(commands) < atLeast {
		t.Fatalf("found %d commands, want at least %d: looking in the wrong place", len(commands), atLeast)
	}
	for _, c := range commands {
		if !strings.Contains(all.String(), "sallyport "+c) {
			t.Errorf("no script runs `sallyport %s`", c)
		}
	}
}

// leaves returns the commands below path that have none below them.
func leaves(t *testing.T, binary string, path []string) []string {
	t.Helper()
	out, err := exec.Command(binary, append([]string{"__complete"}, append(path, "")...)...).Output()
	if err != nil {
		t.Fatalf("complete %v: %v", path, err)
	}
	var found []string
	for line := range strings.Lines(string(out)) {
		if len(path) == 0 && strings.HasPrefix(line, "help\t") {
			continue // help completes the names of all commands
		}
		name, _, described := strings.Cut(strings.TrimSpace(line), "\t")
		if !described || strings.HasPrefix(name, "-") {
			continue
		}
		if below := leaves(t, binary, append(path[:len(path):len(path)], name)); len(below) > 0 {
			found = append(found, below...)
		} else {
			found = append(found, strings.Join(append(path[:len(path):len(path)], name), " "))
		}
	}
	return found
}
