package cell_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/internal/cell"
)

// TestSecretsLeaveMemory has functions that are told a secret spread it through their memory and end in every way there is. After that no memory that
// any guest had, in use, waiting or spare, has the secret, nor has the template that the next event begins with. While the guest runs it is found,
// so it is looked for in the right place. What is not claimed is the heap of the process: buffers there live until the collector takes them.
func TestSecretsLeaveMemory(t *testing.T) {
	if underRace {
		t.Skip("the race detector sees nothing of guests, and its own memory takes minutes to search; `make isolation` runs this without it")
	}
	const spread = `
const copies = [];
const keep = (v) => { for (let i = 0; i < 50; i++) copies.push(v + i, [v, i].join(), new TextEncoder().encode(v + i)); };
const got = async (ctx) => { const { value } = await ctx.grants.store.call("value"); keep(value.value); await ctx.grants.store.call("look"); return value.value; };
export default async (event, ctx) => { const v = await got(ctx); %s };`
	engine := newEngine(t, nil)
	for name, end := range map[string]string{
		"returns":             `return v.length`,
		"replies with it":     `return v`,
		"throws":              `throw new Error(v)`,
		"never ends":          `for (;;) copies[0] = v + copies[0].length`,
		"grows":               `const big = []; for (let i = 0; i < 200; i++) big.push(new TextEncoder().encode(v.repeat(1000))); return big.length`,
		"uses up its memory":  `for (let s = v; ; s += s) copies.push(new TextEncoder().encode(s))`,
		"recurses for ever":   `const f = (n) => f(n + v) + 1; return f(v)`,
		"is given up":         `ctx.grants.store.call("cancel"); await new Promise(() => setTimeout(() => {}, 1e9))`,
		"never settles":       `await new Promise(() => {})`,
		"passes a host limit": `for (;;) ctx.log(v)`,
	} {
		t.Run(name, func(t *testing.T) {
			limits := cell.DefaultLimits()
			limits.Memory, limits.Timeout, limits.HostCalls = 16<<20, time.Minute, 1000
			if name == "never ends" {
				limits.CPU = 2 * time.Second // which the script takes a hundredth of before, however slow the machine is
			}
			spec := cell.Spec{Name: "fn.js", Kind: api.ModuleScript, Code: fmt.Appendf(nil, spread, end), Grants: granted}
			fn, err := engine.Load(t.Context(), spec, limits)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = fn.Close(context.Background()) })
			for range 2 { // the first wakes, others find what was left
				secret := make([]byte, 24)
				_, _ = rand.Read(secret) // never fails
				during := 0
				call, cancel := context.WithCancel(t.Context())
				_, _, _ = fn.Invoke(call, cell.Input{Event: []byte(`{"data":1}`), EventID: "e", Attempt: 1, Use: func(_ context.Context, u cell.GrantUse) cell.GrantAnswer {
					switch u.Op {
					case "look":
						during = foundInGuests(t, secret)
						return cell.GrantAnswer{JSON: []byte("null")}
					case "cancel":
						cancel()
						return cell.GrantAnswer{JSON: []byte("null")}
					}
					return cell.GrantAnswer{JSON: []byte(`{"value":"` + hex.EncodeToString(secret) + `"}`)}
				}}) // however it ends
				cancel()
				if during == 0 {
					t.Fatal("the secret is not found while the guest has it: the test looks in the wrong place")
				}
				if n := foundInGuests(t, secret); n > 0 {
					t.Errorf("the secret is in the memory of guests after the call, %d times", n)
				}
				if cell.TemplateHas(fn, []byte(hex.EncodeToString(secret))) {
					t.Error("the secret is in the template")
				}
			}
		})
	}
}

// foundInGuests returns how often a secret is, as the guest has it, in the memory of this process that is neither a file's nor in the range of
// addresses where Go's heap is: that is what guests have, and what is kept for the next one.
func foundInGuests(t *testing.T, secret []byte) (found int) {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	memory, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = memory.Close() }() // only read
	pages, err := os.Open("/proc/self/pagemap")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pages.Close() }() // only read
	const terabyte = 40                  // bits
	var heap uint64
	if _, err := fmt.Sscanf(fmt.Sprintf("%p", &maps[0]), "0x%x", &heap); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(bytes.NewReader(maps))
	for lines.Scan() {
		var from, to uint64
		var mode, offset, device, file, label string
		_, _ = fmt.Sscanf(lines.Text(), "%x-%x %s %s %s %s %s", &from, &to, &mode, &offset, &device, &file, &label) // most have no label
		if !strings.HasPrefix(mode, "rw") || label != "" || from>>terabyte == heap>>terabyte {
			continue
		}
		const piece = 1 << 20
		hexed := []byte(hex.EncodeToString(secret))
		for at := from; at < to; at += piece {
			if !inUse(t, pages, at, min(at+piece, to)) {
				continue // most of what is reserved: for stacks, and for the race detector
			}
			part := make([]byte, min(to-at, piece+uint64(len(hexed)))) // they overlap, or a find could be missed between two
			if n, err := memory.ReadAt(part, int64(at)); err == nil || n > 0 {
				found += bytes.Count(part[:n], hexed)
			}
		}
	}
	return found
}

// inUse reports whether any page between two addresses has something in it, in memory or swapped out (proc_pid_pagemap(5)).
func inUse(t *testing.T, pages *os.File, from, to uint64) bool {
	t.Helper()
	const entry, somewhere = 8, 3 << 62
	size := uint64(os.Getpagesize())
	entries := make([]byte, (to-from)/size*entry)
	if _, err := pages.ReadAt(entries, int64(from/size*entry)); err != nil {
		t.Fatal(err)
	}
	for ; len(entries) > 0; entries = entries[entry:] {
		if binary.NativeEndian.Uint64(entries)&somewhere != 0 {
			return true
		}
	}
	return false
}
