import threading, time
def work(i):
    time.sleep(0.2 + 0.1 * i)
    print("thread", i, flush=True)
for i in range(3):
    threading.Thread(target=work, args=(i,)).start()
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
print("main done", threading.current_thread().name, threading.main_thread() is threading.current_thread(), flush=True)
