#!/bin/bash
# libgranary as another program's author meets it: installed, found by pkg-config, linked shared and static, used from C and C++.
. "$(dirname "$0")/../lib/cluster.sh"

root=$TEST_DIR/root
cmake --install "$GRANARY_BIN/.." --prefix "$root" > "$TEST_DIR/install.log" || { cat "$TEST_DIR/install.log"; fail "install"; }
export PKG_CONFIG_PATH=$(dirname "$(find "$root" -name granary.pc)")
export LD_LIBRARY_PATH=$(dirname "$PKG_CONFIG_PATH")
source=$GRANARY_ROOT/tests/integration/library_example.c
sanitize=$(grep -oE '^GRANARY_SANITIZE:STRING=.+' "$GRANARY_BIN/../CMakeCache.txt" | sed 's/.*=/-fsanitize=/' || true)
compiler=$(sed -n 's/^CMAKE_C_COMPILER:[A-Z]*=//p' "$GRANARY_BIN/../CMakeCache.txt")
case $compiler in *ccache*) compiler=gcc ;; esac

step "only the names of granary.h are to be seen"
nm -D --defined-only "$LD_LIBRARY_PATH/libgranary.so" | awk '{print $NF}' | grep -v '^__\|^_' | sort > "$TEST_DIR/names"
sort "$GRANARY_ROOT/client/libgranary.symbols" | diff - "$TEST_DIR/names" || fail "exported names"

step "shared, static, C++"
# shellcheck disable=SC2046
$compiler $sanitize -Wall -Werror -o "$TEST_DIR/shared" "$source" $(pkg-config --cflags --libs granary)
# shellcheck disable=SC2046
$compiler $sanitize -Wall -Werror -o "$TEST_DIR/static" "$source" $(pkg-config --cflags granary) "$LD_LIBRARY_PATH/libgranary.a" \
	$(pkg-config --libs $(pkg-config --print-requires-private granary)) -lpthread
printf '#include <granary.h>\nint main() { return granary_error_errno(0); }\n' > "$TEST_DIR/plus.cc"
# shellcheck disable=SC2046
g++ $sanitize -Wall -Werror -o "$TEST_DIR/plus" "$TEST_DIR/plus.cc" $(pkg-config --cflags --libs granary)
"$TEST_DIR/plus" || fail "C++"

step "used"
up --masters 1 --chunkservers 3
for program in shared static; do
	expect 0 "$TEST_DIR/$program" "/$program"
	granary get "/$program" "$TEST_DIR/got"
	equal "$(cat "$TEST_DIR/got")" "bytes"
done
