// Package harden rewrites a WebAssembly module so that a host can hold it to its limits. It works
// on bytes: no I/O, no state, and it runs nothing.
//
// A hardened module counts what it does. In every loop, in every recursion and in long stretches of straight code it
// takes from a fuel counter; when the counter is empty, it
// fills it again, leaves native code for a moment, and traps if the host has set the module's stop
// flag. (A short function that is in no recursion is counted by its callers.) Both halves matter. Native code that never returns to Go cannot be preempted: it would hold
// up the garbage collector, with it the whole process, and with that the timer that is to stop the
// guest. Returning at every loop head, which is what wazero does by itself when it is asked to
// obey a context, costs several times the work of the guest (design/decisions/0003).
//
// Besides, every table gets a maximum, because table.grow takes memory from the host and not from
// the guest's limit; the start function becomes an export, so that the host calls it when it
// can also stop it; and every mutable global is exported under a reserved name, so that the host can
// take and restore a snapshot. Report says what else the host has to know.
//
// Every section and every instruction is read. What is read here MUST be what the compiler reads:
// bytes that one of the two takes for an immediate and the other for an instruction would be code
// without checks, or code that names the added globals. So everything is refused that is not
// encoded exactly as core 2.0, tail calls and extended constant expressions say (ErrMalformed), or
// that belongs to another proposal or is past a limit (ErrUnsupported). Exceptions are left out
// although wazero has them: its exception references are addresses that the garbage collector does
// not see, and every try block copies the stack.
//
// Whether the code is well typed is for the compiler to say. Caller: cell.
package harden

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Limits of a module. Each bounds what the compiler or the host spends on a few bytes of a module.
const (
	// MaxTables and MaxTableElements bound the host's memory: an element takes 8 bytes of it.
	MaxTables        = 16
	MaxTableElements = 1 << 18 // the largest Go programs have some 50,000 functions
	// MaxFunctions is as many as a table holds.
	MaxFunctions = MaxTableElements
	// MaxTypes is far over what any compiler emits.
	MaxTypes = 1 << 16
	// MaxImports is many times what there is to import.
	MaxImports = 1000
	// MaxExports fits modules that export every function of theirs.
	MaxExports = 1 << 14
	// MaxGlobals fits AssemblyScript, where every variable of a module is one.
	MaxGlobals = 1 << 14
	// MaxSegments is the limit of browsers for data segments; Go's linker keeps to it.
	MaxSegments = 100_000
	// MaxSegmentElements bounds the elements in all segments; one takes some 50 bytes at run time.
	MaxSegmentElements = 1 << 20
	// MaxNameBytes fits the mangled names of C++.
	MaxNameBytes = 1 << 13
	// MaxParams bounds the parameters of a function, and its results. Browsers have the same limit.
	MaxParams = 1000
	// MaxLocals bounds the locals of a function with its parameters. Browsers have the same limit.
	MaxLocals = 50_000
	// MaxFunctionBytes bounds the code of a function: the compiler may take 1,200 times as much
	// memory. The largest function of a Go program of 14 MB has 79,000 bytes.
	MaxFunctionBytes = 512 << 10
	// MaxDepth bounds how deep the blocks of a function nest. Go nests one block for every call in
	// a function.
	MaxDepth = 1 << 14
	// MaxBranchTargets bounds a function's targets of br_table: one takes 2.5 KB when it is compiled.
	// The Go compiler has 12,048 in one function.
	MaxBranchTargets = 1 << 16
	// MaxMerges bounds the product of a function's locals and basic blocks: for each pair, the
	// compiler may make a value of 60 bytes.
	MaxMerges = 1 << 22
	// MaxEffort bounds the time that a module takes to compile, to about a minute: see cost. A Go
	// program of 14 MB has a fifth of it.
	MaxEffort = 1 << 31
)

// Exports that a hardened module has besides its own. A module that exports a name with
// ReservedPrefix itself is refused.
const (
	ReservedPrefix = "sallyport:"
	// StopExport is a mutable i32: the guest traps soon after it is set to anything but 0.
	StopExport = ReservedPrefix + "stop"
	// StartExport is the start function, if there is one: to be called first.
	StartExport = ReservedPrefix + "start"
	// GlobalPrefix, followed by its number, is the name of a mutable global: see Report.Globals.
	GlobalPrefix = ReservedPrefix + "global:"
)

// Errors of Module: it returns no others.
var (
	// ErrMalformed is wrapped when the bytes are no valid module.
	ErrMalformed = errors.New("malformed module")
	// ErrUnsupported is wrapped when they may be, but use a feature that is not enabled here, or
	// exceed a limit.
	ErrUnsupported = errors.New("unsupported module")
)

// The sections, by id.
const (
	sectionCustom    = 0
	sectionType      = 1
	sectionImport    = 2
	sectionFunction  = 3
	sectionTable     = 4
	sectionMemory    = 5
	sectionGlobal    = 6
	sectionExport    = 7
	sectionStart     = 8
	sectionElement   = 9
	sectionCode      = 10
	sectionData      = 11
	sectionDataCount = 12
	sectionTag       = 13
)

// ranks gives the place of each section in a module, by id: the data count (12) is before the code.
var ranks = [...]int{1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6, 7: 7, 8: 8, 9: 9, 12: 10, 10: 11, 11: 12}

var header = []byte("\x00asm\x01\x00\x00\x00")

// section is a section of a module, without its id and size.
type section struct {
	id   byte
	body []byte
}

// Module returns code hardened, and what is to be known of it. The result computes what code
// computes, unless it is stopped or grows a table past MaxTableElements. Custom sections are dropped.
func Module(code []byte) ([]byte, Report, error) {
	sections, err := split(code)
	if err != nil {
		return nil, Report{}, err
	}
	m := module{sections: sections}
	if err := m.rewrite(); err != nil {
		return nil, Report{}, err
	}
	size := len(header)
	for _, s := range m.sections {
		size += 1 + binary.MaxVarintLen32 + len(s.body)
	}
	out := append(make([]byte, 0, size), header...)
	for _, s := range m.sections {
		out = append(out, s.id)
		out = binary.AppendUvarint(out, uint64(len(s.body)))
		out = append(out, s.body...)
	}
	return out, m.report, nil
}

// split returns the sections of a module but the custom ones, which have no meaning at run time.
func split(code []byte) ([]section, error) {
	if !bytes.HasPrefix(code, header) {
		return nil, fmt.Errorf("%w: it does not begin with the WebAssembly 1.0 header", ErrMalformed)
	}
	var sections []section
	in := reader{rest: code[len(header):]}
	last := 0
	for len(in.rest) > 0 {
		id := in.byte()
		body := in.take(in.u32())
		if in.failed {
			return nil, fmt.Errorf("%w: section %d is cut off", ErrMalformed, id)
		}
		switch {
		case id == sectionCustom:
			custom := reader{rest: body}
			if custom.name(); custom.failed {
				return nil, fmt.Errorf("%w: a custom section has no name in UTF-8", ErrMalformed)
			}
			continue
		case id == sectionTag:
			return nil, unsupported(exceptions)
		case int(id) >= len(ranks) || ranks[id] <= last:
			return nil, fmt.Errorf("%w: section %d is unknown or out of order", ErrMalformed, id)
		}
		last = ranks[id]
		sections = append(sections, section{id, body})
	}
	return sections, nil
}

// module is a module while it is rewritten.
type module struct {
	sections  []section
	types     []signature
	functions []uint32    // their types, the imported ones first
	globals   []ValueType // its own; the added ones come after them
	hasMemory bool
	start     start
	named     []bool  // which of its own functions are named outside the code
	light     []int64 // what each of its own functions counts as for a caller; 0 for one with a check
	check     check
	flow      flow // of the function at hand
	cost      cost // of the function at hand
	effort    int64
	changes   change
	dataCount uint32 // the number of data segments, where the module says it beforehand
	namesData bool   // the code has instructions that name data segments
	joined    bool   // the data segments were joined
	report    Report
}

// The globals that are added, after the module's own.
const (
	globalFuel    = iota // what is left until the guest leaves native code
	globalStop           // set by the host
	globalScratch        // the length of a bulk operation
	addedGlobals
)

func (m *module) rewrite() error {
	m.readStart()
	m.need(sectionMemory) // memory.grow is how the guest leaves native code
	m.need(sectionGlobal)
	m.need(sectionExport)
	for i := range m.sections {
		if err := m.section(&m.sections[i]); err != nil {
			return err
		}
	}
	if _, ok := m.find(sectionCode); !ok && len(m.functions) > len(m.report.Imports) {
		return fmt.Errorf("%w: it has %d functions and no code", ErrMalformed, len(m.functions)-len(m.report.Imports))
	}
	m.drop(sectionStart)
	if m.joined {
		m.drop(sectionDataCount)
	}
	m.report.Changes = m.changes.names()
	return nil
}

func (m *module) section(s *section) (err error) {
	switch s.id {
	case sectionType:
		err = m.readTypes(s.body)
	case sectionImport:
		err = m.readImports(s.body)
	case sectionFunction:
		err = m.readFunctions(s.body)
	case sectionTable:
		err = m.boundTables(s)
	case sectionMemory:
		err = m.addMemory(s)
	case sectionGlobal:
		err = m.addGlobals(s)
	case sectionExport:
		err = m.addExports(s)
	case sectionElement:
		err = m.readElements(s.body)
	case sectionCode:
		s.body, err = m.code(s.body)
	case sectionData:
		if err = m.readData(s.body); err == nil {
			m.joinData(s)
		}
	case sectionDataCount:
		in := reader{rest: s.body}
		if m.dataCount = in.u32(); in.failed || len(in.rest) > 0 {
			err = fmt.Errorf("%w: the data count section does not end where it says", ErrMalformed)
		}
	}
	return err
}

// find returns where a section is, or where it would be, and whether it is there.
func (m *module) find(id byte) (int, bool) {
	for i, s := range m.sections {
		if ranks[s.id] >= ranks[id] {
			return i, s.id == id
		}
	}
	return len(m.sections), false
}

// need adds an empty section if there is none of that id.
func (m *module) need(id byte) {
	if i, ok := m.find(id); !ok {
		m.sections = slices.Insert(m.sections, i, section{id, []byte{0}})
	}
}

func (m *module) drop(id byte) {
	if i, ok := m.find(id); ok {
		m.sections = slices.Delete(m.sections, i, i+1)
	}
}

// entries reads the vector that a section consists of: at most limit entries, each with read.
func entries(body []byte, what string, limit uint32, read func(in *reader) error) error {
	in := reader{rest: body}
	count := in.u32()
	switch {
	case uint64(count) > uint64(len(in.rest)): // an entry takes a byte at least
		return fmt.Errorf("%w: it says it has %d %s, in %d bytes", ErrMalformed, count, what, len(in.rest))
	case count > limit:
		return fmt.Errorf("%w: it has %d %s, the limit is %d", ErrUnsupported, count, what, limit)
	}
	for i := range count {
		if err := read(&in); err != nil {
			return fmt.Errorf("%w, in entry %d of its %s", err, i, what)
		}
		if in.failed {
			return fmt.Errorf("%w: entry %d of its %s is cut off or not encoded as it must be", ErrMalformed, i, what)
		}
	}
	if in.failed || len(in.rest) > 0 {
		return fmt.Errorf("%w: the section of its %s does not end where it says", ErrMalformed, what)
	}
	return nil
}

// shortName reads a name of at most MaxNameBytes.
func shortName(in *reader) (string, error) {
	size := in.u32()
	bytes := in.take(size)
	switch {
	case !in.failed && size > MaxNameBytes:
		return "", fmt.Errorf("%w: a name is %d bytes long, the limit is %d", ErrUnsupported, size, MaxNameBytes)
	case !utf8.Valid(bytes):
		in.fail()
	}
	return string(bytes), nil
}

func isReserved(name string) bool { return strings.HasPrefix(name, ReservedPrefix) }
