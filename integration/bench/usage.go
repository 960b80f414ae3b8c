package bench

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// usage is what processes have used so far, as the kernel counts it.
type usage struct {
	cpu time.Duration
	// The largest of the processes, in bytes.
	resident, peak, anonymous int64
}

// usageOf sums the CPU of processes.
func usageOf(pids []int) (usage, error) {
	var u usage
	var all error
	for _, pid := range pids {
		one, err := usageOfOne(pid)
		all = errors.Join(all, err)
		u.cpu += one.cpu
		u.resident = max(u.resident, one.resident)
		u.peak = max(u.peak, one.peak)
		u.anonymous = max(u.anonymous, one.anonymous)
	}
	return u, all
}

func usageOfOne(pid int) (u usage, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, err
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+2:]))
	const userAt, systemAt, ticksPerSecond = 11, 12, 100 // USER_HZ on every Linux
	user, err1 := strconv.ParseInt(fields[userAt], 10, 64)
	system, err2 := strconv.ParseInt(fields[systemAt], 10, 64)
	u.cpu = time.Duration(user+system) * time.Second / ticksPerSecond
	status, err3 := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	u.resident, u.peak, u.anonymous = kilobytes(status, "VmRSS:"), kilobytes(status, "VmHWM:"), kilobytes(status, "RssAnon:")
	return u, errors.Join(err1, err2, err3)
}

func kilobytes(status []byte, name string) int64 {
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return n << 10
		}
	}
	return 0
}

// ownCPU is what this process, the client, has used.
func ownCPU() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// machineFacts is what a reader must know of the machine.
func machineFacts() map[string]string {
	facts := map[string]string{
		"cpus": strconv.Itoa(runtime.NumCPU()), "go": runtime.Version(), "kernel": text("/proc/sys/kernel/osrelease"),
		"congestion control": text("/proc/sys/net/ipv4/tcp_congestion_control"),
		"load":               text("/proc/loadavg"),
	}
	for line := range strings.Lines(text("/proc/cpuinfo")) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			facts["cpu"] = strings.TrimSpace(value)
		}
	}
	if total := kilobytes([]byte(text("/proc/meminfo")), "MemTotal:"); total > 0 {
		facts["memory"] = fmt.Sprintf("%.0f GiB", float64(total)/(1<<30))
	}
	return facts
}

func text(file string) string {
	b, _ := os.ReadFile(file)
	return strings.TrimSpace(string(b))
}
