package cell_test

import (
	"fmt"
	"runtime"
	"slices"
	"testing"

	"sallyport/internal/cell"
)

// deepening is a module that recurses so deep that it needs most of the native stack that there is,
// and comes back.
func deepening() []byte {
	return assembly{functions: []function{
		handler(0, code(number(1_000_000), opCall, 1, opDrop, number(0))...),
		{params: []byte{i32}, results: []byte{i32}, code: code(opLocalGet, 0, opIf, blockI32,
			opLocalGet, 0, number(1), opSub, opCall, 1, number(1), opAdd, opElse, number(0), opEnd)},
	}, pages: 1}.bytes()
}

// TestNativeStackIsGivenBack is not parallel: it measures memory. An instance that waits must not
// hold the stack of a deep recursion, which nothing accounts for.
func TestNativeStackIsGivenBack(t *testing.T) {
	inUse := func() int {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int(m.HeapInuse)
	}
	before := inUse()
	for i := range 4 {
		f := load(t, wasm(fmt.Sprintf("deep-%d.wasm", i), deepening()), cell.DefaultLimits())
		if _, _, err := f.Invoke(t.Context(), cell.Input{}); err != nil {
			t.Fatal(err)
		}
		if cold(t, f, `1`) {
			t.Fatal("the instance does not wait for the next event")
		}
	}
	if held := inUse() - before; held > 40<<20 {
		t.Errorf("4 instances that wait hold %d MiB", held>>20)
	}
}

// TestTablesCount: the elements of tables count as memory, of which a function has a limit.
func TestTablesCount(t *testing.T) {
	t.Parallel()
	full := slices.Concat([]byte{funcRef, 0}, uleb(1<<18))
	module := assembly{functions: []function{handler(0, opConst, 0)}, table: vec(full, full), pages: 1}.bytes()
	limits := cell.DefaultLimits()
	load(t, wasm("tables.wasm", module), limits)
	limits.Memory = 4 << 20
	_, err := testEngine(t).Load(t.Context(), wasm("tables.wasm", module), limits)
	wantText(t, wantProblem(t, err, problemUnprocessable, "cell.memory_limit_too_small").Public, "4259840")
}
