package harden_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"sallyport/internal/cell/harden"
	"sallyport/internal/cell/js"
)

// imports is a module's types and imports: sallyport.grant_start, as a function without parameters.
func imports() [][]byte {
	entry := slices.Concat([]byte{1, 9}, []byte("sallyport"), []byte{11}, []byte("grant_start"), []byte{0, 0})
	return [][]byte{sec(1, 1, 0x60, 0, 0), sec(2, entry...)}
}

func look(t *testing.T, code []byte) *harden.Surface {
	t.Helper()
	s, err := harden.Look(code)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLookImports(t *testing.T) {
	t.Parallel()
	s := look(t, module(imports()...))
	if !s.Imports("sallyport", "grant_start") || s.Imports("sallyport", "grant_end") || s.Imports("env", "grant_start") {
		t.Error("the imports are not those of the module")
	}
	if s.Mentions("sallyport") {
		t.Error("the name of an import is no text of the module")
	}
}

// TestMentions: a text is found wherever compilers put it, and nowhere else.
func TestMentions(t *testing.T) {
	t.Parallel()
	active := func(at byte, text string) []byte {
		return slices.Concat([]byte{0, 0x41, at, 0x0b, byte(len(text))}, []byte(text))
	}
	body := func(code ...byte) []byte { // a function that drops what it has
		code = append(append([]byte{0}, code...), 0x1a, 0x0b)
		return module(sec(1, 1, 0x60, 0, 0), sec(3, 1, 0), sec(10, append([]byte{1, byte(len(code))}, code...)...))
	}
	memory := sec(5, 1, 0, 1)
	for name, test := range map[string]struct {
		code []byte
		text string
		want bool
	}{
		"a data segment":         {module(memory, sec(11, append([]byte{1}, active(8, "xcartsx")...)...)), "carts", true},
		"another text":           {module(memory, sec(11, append([]byte{1}, active(8, "xcart sx")...)...)), "carts", false},
		"two that follow":        {module(memory, sec(11, slices.Concat([]byte{2}, active(11, "ts"), active(8, "car"))...)), "carts", true},
		"two that do not follow": {module(memory, sec(11, slices.Concat([]byte{2}, active(12, "ts"), active(8, "car"))...)), "carts", false},
		"UTF-16":                 {module(memory, sec(11, append([]byte{1}, active(8, "c\x00a\x00r\x00t\x00s\x00")...)...)), "carts", true},
		"UTF-16, cut":            {module(memory, sec(11, append([]byte{1}, active(8, "c\x00a\x00r\x00t\x00s")...)...)), "carts", true},
		"a passive segment":      {module(memory, sec(12, 1), sec(11, slices.Concat([]byte{1, 1, 5}, []byte("carts"))...)), "carts", true},
		"a custom section":       {module(slices.Concat([]byte{0, 8, 1, 'n', 0}, []byte("carts"))), "carts", true},
		"a number of 32 bits":    {body(0x41, 0xe3, 0xc2, 0xc9, 0xa3, 0x07), "carts", true}, // "cart"
		"another number":         {body(0x41, 0xe4, 0xc2, 0xc9, 0xa3, 0x07), "carts", false},
		"a number of 16 bits":    {body(0x41, 0xeb, 0xec, 0x01), "kv", true},
		"a byte":                 {body(0x41, 0xeb, 0x00), "k", true},
		"a number of 64 bits":    {body(append([]byte{0x42}, signed(0x73746e656d796170)...)...), "payments", true},
		"its first eight":        {body(append([]byte{0x42}, signed(0x73746e656d796170)...)...), "payments-eu", true},
		"nothing":                {module(memory), "carts", false},
	} {
		if got := look(t, test.code).Mentions(test.text); got != test.want {
			t.Errorf("%s: Mentions(%q) = %v", name, test.text, got)
		}
	}
}

// signed is a number in signed LEB128.
func signed(v int64) (out []byte) {
	for v < -64 || v > 63 {
		out = append(out, byte(v&0x7f)|0x80)
		v >>= 7
	}
	return append(out, byte(v&0x7f))
}

func TestLookRefuses(t *testing.T) {
	t.Parallel()
	for name, code := range map[string][]byte{
		"no module":               []byte("#!/bin/sh"),
		"a section that is cut":   append(module(), 11, 200, 1),
		"too many data segments":  module(sec(5, 1, 0, 1), sec(11, 0xff, 0xff, 0xff, 0x7f)),
		"an import that is a lie": module(sec(2, 1, 200)),
	} {
		if _, err := harden.Look(code); !errors.Is(err, harden.ErrMalformed) && !errors.Is(err, harden.ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzLook: whatever the bytes are, looking ends, and a module that hardening takes can be looked at and imports the same.
func FuzzLook(f *testing.F) {
	f.Add(module(imports()...))
	f.Add(module(sec(5, 1, 0, 1), sec(12, 1), sec(11, 1, 1, 2, 'k', 'v')))
	f.Add(module(sec(5, 1, 0, 1), sec(11, 2, 0, 0x41, 8, 0x0b, 1, 'k', 0, 0x41, 9, 0x0b, 1, 'v')))
	f.Add(js.Code()[:2000])
	f.Fuzz(func(t *testing.T, code []byte) {
		before := bytes.Clone(code)
		s, err := harden.Look(code)
		if !bytes.Equal(code, before) {
			t.Fatal("looking changes the module")
		}
		_, report, hardenErr := harden.Module(code)
		if hardenErr == nil && err != nil {
			t.Fatalf("Look = %v of a module that is in order", err)
		}
		if err != nil {
			return
		}
		s.Mentions("kv")
		if hardenErr != nil {
			return
		}
		for _, i := range report.Imports {
			if !s.Imports(i.Module, i.Name) {
				t.Errorf("the import %s.%s is not seen", i.Module, i.Name)
			}
		}
	})
}
