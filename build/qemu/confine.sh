#!/usr/bin/env bash
# Runs the tests of the workers' confinement on ARM: the kernel that Debian ships for a board, in a machine that QEMU
# makes, with an initramfs of two static programs. Emulating a program alone proves nothing here: qemu-user has no
# seccomp and no Landlock of its own.
#
#   build/qemu/confine.sh [arm64|arm]…
#
# Needs qemu-system-arm, cpio and apt. Kernels are fetched once: see kernel.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."
LONGEST=${LONGEST:-900} # seconds that a guest may run
export CGO_ENABLED=0 GOOS=linux
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# guest ARCH boots the kernel of ARCH and runs the tests there.
guest() {
	local arch=$1 image dir=$work/$1 log=$work/$1.log start=$SECONDS qemu
	case $arch in
	arm64) image=$(build/qemu/kernel.sh arm64 linux-image-arm64) qemu=(qemu-system-aarch64 -cpu cortex-a53) ;;
	arm) image=$(build/qemu/kernel.sh armhf linux-image-armmp) qemu=(qemu-system-arm -cpu cortex-a15) ;;
	*) echo "$arch is not arm64 or arm"; return 1 ;;
	esac
	mkdir -p "$dir/dev"
	GOARCH=$arch GOARM=6 go build -trimpath -ldflags '-s -w' -o "$dir/init" ./build/qemu/init
	GOARCH=$arch GOARM=6 go test -c -trimpath -ldflags '-s -w' -o "$dir/tests" ./functions/confine
	(cd "$dir" && find . | cpio --quiet -o -H newc -R 0:0) >"$work/$arch.cpio"
	timeout "$LONGEST" "${qemu[@]}" -M virt -accel tcg -smp 2 -m 768 -nographic -nodefaults -serial stdio -monitor none -no-reboot \
		-kernel "$image" -initrd "$work/$arch.cpio" -append 'console=ttyAMA0 quiet panic=-1 rdinit=/init' </dev/null >"$log" 2>&1 || true
	tr -d '\r' <"$log" >"$log.text"
	grep -E '^\s+real_test.go:[0-9]+: [a-z_]+ +(on|off|unavailable)' "$log.text" | sed -E 's/^ *[^ ]+ /   /' || true
	passed=$((passed + $(grep -cE '^\s*--- PASS' "$log.text" || true)))
	failed=$((failed + $(grep -cE '^\s*--- (FAIL|SKIP)' "$log.text" || true)))
	if ! grep -q '^guest-result: ok$' "$log.text"; then
		failed=$((failed + 1))
		tail -n 60 "$log.text"
	fi
	echo "$arch: $(sed -n 's/^guest-kernel: //p' "$log.text"), $((SECONDS - start)) s"
}

passed=0 failed=0
for arch in "${@:-arm64 arm}"; do
	for a in $arch; do guest "$a"; done
done
echo "$passed passed, $failed failed"
test "$failed" -eq 0 && test "$passed" -gt 0
