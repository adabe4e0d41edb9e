#include <stdio.h>
#include <sys/stat.h>

int main(void) {
    char text[256];
    FILE *in = fopen("données.txt", "r");
    size_t length = fread(text, 1, sizeof text, in);
    mkdir("out", 0755);
    FILE *out = fopen("out/copy.txt", "w");
    fwrite(text, 1, length, out);
    fputs("more\n", out);
    fclose(out);
    puts("written");
    return 0;
}
