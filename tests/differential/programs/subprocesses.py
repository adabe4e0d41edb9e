import subprocess, sys, os
print(subprocess.run([sys.executable, "-c", "import sys; print(sys.argv, 'numpy' in sys.modules, sys.path[0])", "x"], capture_output=True, text=True))
print(subprocess.check_output("echo shell $0", shell=True, text=True), flush=True)
os.system("echo direct")
print(subprocess.run(["sh", "-c", "exit 3"]).returncode, sorted(int(f) for f in os.listdir("/proc/self/fd"))[:3])
