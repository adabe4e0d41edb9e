#include <stdio.h>
#include <string.h>

int main(void) {
    const char *text = "Grüße, 世界 🌍";
    int points = 0;
    for (const char *c = text; *c; c++) points += (*c & 0xC0) != 0x80;
    printf("%s\n%d\n", text, points);
    return 0;
}
