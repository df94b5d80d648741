package harden

import (
	"fmt"
	"strings"
)

// ValueType is the type of a value, as it is encoded in a module.
type ValueType byte

// The types of values.
const (
	I32       ValueType = 0x7f
	I64       ValueType = 0x7e
	F32       ValueType = 0x7d
	F64       ValueType = 0x7c
	V128      ValueType = 0x7b
	FuncRef   ValueType = 0x70
	ExternRef ValueType = 0x6f
)

// String returns the name of t in the text format.
func (t ValueType) String() string {
	switch t {
	case I32:
		return "i32"
	case I64:
		return "i64"
	case F32:
		return "f32"
	case F64:
		return "f64"
	case V128:
		return "v128"
	case FuncRef:
		return "funcref"
	case ExternRef:
		return "externref"
	}
	return fmt.Sprintf("type %#x", byte(t))
}

// Report is what a host has to know of a hardened module without running it. It is a value: nobody
// changes it after Module has returned it.
type Report struct {
	// Imports are the functions it imports, in order; it imports nothing else.
	Imports []Import
	// Memory is its memory. A module without one got one of no size.
	Memory Memory
	// Tables are its tables, with the maximum that hardening gave them.
	Tables []Table
	// Globals are its mutable globals, all exported under their reserved names, those of the
	// hardening included and the stop flag excluded: no snapshot may restore that.
	Globals []Global
	// Changes names the instructions in its code that change what lies outside memory and globals:
	// tables, and which segments are dropped. Segments copied by the instantiation itself do not
	// count.
	Changes []string
	// Start is true if it has a start function, which is exported as StartExport.
	Start bool
}

// Import is a function that a module imports.
type Import struct {
	Module, Name    string
	Params, Results []ValueType
}

// Memory is the size of a memory, in pages of 64 KiB.
type Memory struct{ Min, Max uint32 }

// Table is a table's type, and its size in elements.
type Table struct {
	Type     ValueType
	Min, Max uint32
}

// Global is a mutable global.
type Global struct {
	Name  string // under which it is exported
	Index uint32
	Type  ValueType
}

// Restorable reports whether wazero's api.MutableGlobal can read and set the whole value. It sees
// the lower half of a v128 only, and sets the upper half to 0.
func (g Global) Restorable() bool { return g.Type != V128 }

// Portable reports whether the value means the same in another instance of the module. A reference
// is an address inside the instance it was read from: it MUST NOT be set in any other.
func (g Global) Portable() bool {
	return g.Restorable() && g.Type != FuncRef && g.Type != ExternRef
}

// Resettable reports whether an instance is as it was when its memory and its globals are: that is,
// whether it can be used again after a reset.
func (r Report) Resettable() bool { return r.Obstacle() == "" }

// Obstacle says in one sentence why the module is not resettable. It is empty if it is.
func (r Report) Obstacle() string {
	if len(r.Changes) > 0 {
		return "its code changes tables or segments, which a reset does not restore: " + strings.Join(r.Changes, ", ")
	}
	for _, g := range r.Globals {
		if !g.Restorable() {
			return fmt.Sprintf("its global %d is a mutable %s, of which a reset restores only one half", g.Index, g.Type)
		}
	}
	return ""
}

// Portable reports whether a snapshot of one instance's memory and globals can be put into another
// instance: it is resettable, and no global is a reference.
func (r Report) Portable() bool {
	for _, g := range r.Globals {
		if !g.Portable() {
			return false
		}
	}
	return r.Resettable()
}
